//! Reasons to reject an answer.

use crate::vector::NotAVector;

/// Reason why an answer with status 200 is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerFault {
    /// It exceeds the size limit.
    #[error("it is too large")]
    TooLarge,
    /// It does not fit in memory.
    #[error("there is no room for it")]
    NoRoom,
    /// It is not JSON of the expected shape.
    #[error("it is not an embeddings answer")]
    Shape,
    /// The number of vectors differs from the number of inputs.
    #[error("it holds another number of vectors than there were inputs")]
    Count,
    /// An `index` is out of range or used twice, or some are missing and the others are not in order.
    #[error("its indices are not a permutation")]
    Index,
    /// All vectors have this dimension, and another one was expected.
    #[error("all vectors have {0} dimensions in place of those expected")]
    OtherDimension(usize),
    /// The vectors differ in length, have a wrong length, or come from base64 that does not prove to be f32.
    #[error("a vector has the wrong dimension")]
    Dimension,
    /// Its sender marks it as a fallback answer.
    #[error("it is marked as a fallback")]
    UpstreamFallback,
    /// Some of its base64 is invalid.
    #[error("its base64 is broken")]
    Base64,
    /// The numbers are not a valid vector.
    #[error("a vector is unusable: {0}")]
    Vector(#[from] NotAVector),
}
