//! A stored vector: the same numbers in fewer bytes, or the original numbers.
//!
//! [`Form`] defines the layout of a payload. Each form except [`Form::F32`] has its own file.

mod codec;
mod form;
mod int8;
mod packed_vector;
mod payload;
mod ratio;
mod rounded;

#[cfg(test)]
mod tests;

pub use codec::Codec;
pub use form::Form;
pub use packed_vector::{NotPacked, Packed};
