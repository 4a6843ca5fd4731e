//! Embeddings answers: reads those of the upstream with every check that a stored vector needs, and renders our own.

mod answer_fault;
mod cursor;
mod proof;
mod read;
mod render;

pub use answer_fault::AnswerFault;
pub use read::{Base64, Expected, Members, ReadAnswer, read_answer, read_answer_in_slices};
pub use render::Rendering;
