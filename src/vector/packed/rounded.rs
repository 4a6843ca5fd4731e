//! Components rounded to bfloat16, the upper half of an f32: the same range, with eight significant bits.

use std::sync::Arc;

use super::form::Form;
use super::payload::new_payload;
use crate::vector::{COMPONENT_BYTES, Vector};

/// Returns the payload, or `None` if rounding makes a component infinite or all of them zero.
pub(super) fn pack(vector: &Vector) -> Option<Arc<[u8]>> {
    let components = vector.as_le_bytes().as_chunks::<COMPONENT_BYTES>().0;
    let mut payload = new_payload(Form::Bf16, components.len());
    let halves = Arc::get_mut(&mut payload).expect("a new payload must have no other owner").as_chunks_mut().0;
    let (mut is_finite, mut magnitude_bits) = (true, 0);
    for (component, out) in components.iter().zip(halves) {
        let half = round(u32::from_le_bytes(*component));
        // Numbers near the maximum round up to infinity.
        is_finite &= half & 0x7f80 != 0x7f80;
        magnitude_bits |= half & 0x7fff;
        *out = half.to_le_bytes();
    }
    (is_finite && magnitude_bits != 0).then_some(payload)
}

/// Unpacks as many components as `out` holds, starting at component `at`.
pub(super) fn unpack(payload: &[u8], at: usize, out: &mut [[u8; COMPONENT_BYTES]]) {
    for (half, component) in payload.as_chunks().0[at..].iter().zip(out) {
        *component = (u32::from(u16::from_le_bytes(*half)) << 16).to_le_bytes();
    }
}

/// Rounds to the nearest bfloat16; ties go to the even one.
fn round(bits: u32) -> u16 {
    // The sum cannot overflow: a finite f32 has at most the bits 0xff7f_ffff.
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}
