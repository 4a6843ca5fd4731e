//! Embeddings answers: reading the upstream's with every check that a stored vector needs, and rendering our own.

mod cursor;
mod proof;
mod read;
mod render;

pub use read::{Base64, Expected, Members, ReadAnswer, Unreadable, read_answer};
pub use render::Rendering;
