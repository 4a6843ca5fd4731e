//! The error of decoders.

/// Error of a body that does not match its content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body does not match its content coding")]
pub struct Undecodable;
