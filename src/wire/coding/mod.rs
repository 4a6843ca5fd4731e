//! Content codings (RFC 9110, section 8.4.1), decoded in steps of bounded size.

mod decoding;
mod gzip;
mod header;
mod inflate;
mod stage;
mod undecodable;

#[cfg(test)]
mod tests;

pub use decoding::{Decoding, Step};
pub use header::{Coding, content_codings};
pub use undecodable::Undecodable;
