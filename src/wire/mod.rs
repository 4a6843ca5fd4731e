//! The OpenAI embeddings format, without I/O: requests, answers and errors.

mod bypass;
mod candidates;
mod coding;
mod cost;
mod error;
mod form;
mod inputs;
mod members;
mod ranking;
mod request;
mod response;
mod similar;
mod similar_fault;
mod space;
pub mod tokens;
mod unknown;
mod usage;
mod write;

pub use crate::observe::metrics::AnswerCoding;
pub use bypass::{Bypass, BypassCause};
pub use coding::{
    AcceptedCodings, ChosenCoding, Coding, Decoding, Encoder, PREFERRED_CODINGS, Step, Undecodable, content_codings,
};
pub use cost::{reading_bytes, similar_bytes};
pub use error::{envelope, error_code, error_fields};
pub use form::{RequestForm, WrittenEncoding};
pub use inputs::MAX_INPUTS;
pub use ranking::{RankedCandidate, rank, write_ranking, write_scores};
pub use request::{EmbedRequest, MAX_DIMENSIONS, PathModel, read_request};
pub use response::{AnswerFault, Base64, Expected, Members, ReadAnswer, Rendering, read_answer, read_answer_in_slices};
pub use similar::{SimilarForm, SimilarQuery, SimilarRequest};
pub use similar_fault::SimilarFault;
pub use space::{Encoding, Extra, Input, InputKind, MAX_INPUT_TOKENS, Space};
pub use unknown::unknown_fields;
pub use usage::reported_tokens;
pub use write::write_request;

#[cfg(test)]
mod property_tests;
