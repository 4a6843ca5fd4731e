//! A vector as it is stored and sent: f32 components as little-endian bytes, exactly as the upstream gave them.

mod components;
mod cosine;
pub mod packed;

pub use components::{COMPONENT_BYTES, NotAVector, Vector};
pub use cosine::CosineQuery;
