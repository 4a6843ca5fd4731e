//! The OpenAI embeddings format, pure: what a request means, what an answer says, what an error looks like.

mod error;
mod request;
mod response;
mod space;
mod unknown;
mod write;

pub use error::{envelope, error_code, error_fields};
pub use request::{Bypass, EmbedRequest, MAX_DIMENSIONS, MAX_INPUTS, PathModel, read_request};
pub use response::{Base64, Expected, ReadAnswer, Rendering, Unreadable, read_answer};
pub use space::{Encoding, Input, InputKind, Space};
pub use unknown::unknown_fields;
pub use write::write_request;

#[cfg(test)]
mod property_tests;
