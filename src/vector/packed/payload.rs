//! Access to the bytes of payloads, for all forms.

use std::sync::Arc;

use super::form::{FACTOR_BYTES, Form};
use crate::vector::COMPONENT_BYTES;

/// Splits a payload into its leading factor and its components.
pub(super) fn split_factor(payload: &[u8]) -> (f32, &[u8]) {
    let (factor, components) = payload.split_first_chunk().expect("a payload must begin with its factor");
    (f32::from_le_bytes(*factor), components)
}

/// Allocates a payload of a form. It has one owner, so it can be written in place.
pub(super) fn new_payload(form: Form, dimension: usize) -> Arc<[u8]> {
    let bytes = form.payload_bytes(dimension).expect("a packed vector must be smaller than the vector");
    // The iterator has a known length, so the bytes are written directly into the `Arc`.
    std::iter::repeat_n(0, bytes).collect()
}

/// Splits a new payload into its leading factor and its components, for writing.
pub(super) fn parts_mut(payload: &mut Arc<[u8]>) -> (&mut [u8; FACTOR_BYTES], &mut [u8]) {
    let bytes = Arc::get_mut(payload).expect("a new payload must have no other owner");
    bytes.split_first_chunk_mut().expect("a payload must begin with its factor")
}

/// Returns the largest magnitude of a vector's components.
pub(super) fn largest_magnitude(components: &[[u8; COMPONENT_BYTES]]) -> f32 {
    // Eight independent maxima let the compiler vectorise the loop.
    let mut largest = [0.0_f32; 8];
    let (blocks, rest) = components.as_chunks::<8>();
    for block in blocks {
        for (largest, component) in largest.iter_mut().zip(block) {
            let magnitude = f32::from_le_bytes(*component).abs();
            *largest = if magnitude > *largest { magnitude } else { *largest };
        }
    }
    let rest = rest.iter().map(|component| f32::from_le_bytes(*component).abs());
    rest.chain(largest).fold(0.0, f32::max)
}
