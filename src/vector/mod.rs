//! A vector as it is stored and sent: f32 components as little-endian bytes, exactly as the upstream gave them.

mod components;
pub mod packed;

pub use components::{COMPONENT_BYTES, NotAVector, Vector};
