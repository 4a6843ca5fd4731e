//! Components rounded to 255 even steps between plus and minus the largest magnitude.

use std::sync::Arc;

use super::form::Form;
use super::payload::{largest_magnitude, new_payload, parts_mut, split_factor};
use crate::vector::{COMPONENT_BYTES, Vector};

/// The integer that represents the largest magnitude.
const STEPS: f32 = 127.0;

/// Returns the payload, or `None` if the vector is too small or too large for a scale.
pub(super) fn pack(vector: &Vector) -> Option<Arc<[u8]>> {
    let components = vector.as_le_bytes().as_chunks::<COMPONENT_BYTES>().0;
    let scale = largest_magnitude(components) / STEPS;
    if !is_usable(scale) {
        return None;
    }
    let mut payload = new_payload(Form::Int8, components.len());
    let (factor, numbers) = parts_mut(&mut payload);
    *factor = scale.to_le_bytes();
    for (component, number) in components.iter().zip(numbers) {
        let steps = f32::from_le_bytes(*component) / scale;
        // Adding and truncating rounds to nearest, and lets the compiler vectorise the loop.
        #[expect(clippy::cast_possible_truncation, reason = "no magnitude is larger than 127 steps")]
        let rounded = (steps + 0.5_f32.copysign(steps)) as i8;
        *number = rounded.to_le_bytes()[0];
    }
    Some(payload)
}

/// Returns true if the scale is one that packing writes.
pub(super) fn is_sound(payload: &[u8]) -> bool {
    is_usable(split_factor(payload).0)
}

/// Unpacks as many components as `out` holds, starting at component `at`.
pub(super) fn unpack(payload: &[u8], at: usize, out: &mut [[u8; COMPONENT_BYTES]]) {
    let (scale, numbers) = split_factor(payload);
    for (number, component) in numbers[at..].iter().zip(out) {
        *component = (f32::from(i8::from_le_bytes([*number])) * scale).to_le_bytes();
    }
}

fn is_usable(scale: f32) -> bool {
    // The largest component is unpacked as `127 * scale`, which must stay finite.
    scale.is_normal() && scale > 0.0 && (scale * STEPS).is_finite()
}
