//! A vector as it is stored and sent: f32 components as little-endian bytes, exactly as the upstream gave them.

mod components;
mod cosine;
pub mod packed;
mod watermark;

pub use components::{COMPONENT_BYTES, NotAVector, Vector};
pub use cosine::CosineQuery;
pub use watermark::{WATERMARK_COMPONENTS, WATERMARK_SIGNS, is_marked, mark};
