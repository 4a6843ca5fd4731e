//! Vectors whose components are `h / n` rounded to f32, with one f32 `n` for all and a half-precision `h` for each.
//!
//! Embedding services compute in half precision and divide by the norm at the end, so what they answer has this form.
//! Neither `h` nor `n` is in the answer; they are found from the numbers alone. Scaling both by a power of two changes
//! no quotient, so the half of the largest component may be taken to lie in the uppermost range of halves, where its
//! significand is one of 1024. Each makes an `n`, but for rounding, and hardly any but the right one brings three other
//! components onto significands of eleven bits. What is found is believed only after every component has come out of
//! it bit for bit.

use std::iter;
use std::sync::Arc;

use super::{Form, largest_magnitude, parts_mut, room, split_factor};
use crate::vector::{COMPONENT_BYTES, Vector};

/// A half's bits, moved to their places in an f32, make a number that is too small by this factor, 2 to the -112:
/// the difference of the exponents' biases. It holds for subnormal halves too.
const MOVED: f32 = f32::from_bits((127 - 112) << 23);

/// Bits of an f32's significand that a half has not.
const LOST_BITS: u32 = 13;

/// Significands of the half of the largest component, and the power of two that takes them to the uppermost range.
const SIGNIFICANDS: std::ops::Range<u32> = 1024..2048;
const UPPERMOST: u32 = 32;

/// Blocks of components that are checked in all, beyond so many times all of them: real vectors need few, and one that
/// was made to need many is no worth it.
const SCANS: usize = 16;
const SPARE_BLOCKS: usize = 512;

/// Components that are checked between two looks at whether all were right so far.
const CHECKED_AT_ONCE: usize = 64;

/// The payload, if every component has the form.
pub(super) fn pack(vector: &Vector) -> Option<Arc<[u8]>> {
    let components = vector.as_le_bytes().as_chunks().0;
    let largest = largest_magnitude(components);
    let (mut payload, mut search) = (None, Search::over(components.len()));
    let found = significands(largest, components).flat_map(|significand| norms(significand, largest));
    for norm in found.filter(|norm| is_usable(*norm)) {
        let payload = payload.get_or_insert_with(|| room(Form::Ratio, components.len()));
        let (factor, halves) = parts_mut(payload);
        if search.reproduces(components, norm * MOVED, halves.as_chunks_mut().0) {
            *factor = norm.to_le_bytes();
            return Some(Arc::clone(payload));
        }
        if search.blocks_left == 0 {
            break;
        }
    }
    None
}

/// Whether `n` is of a size that unpacking can use, and every half is finite.
pub(super) fn is_sound(payload: &[u8]) -> bool {
    let (norm, halves) = split_factor(payload);
    is_usable(norm) && halves.as_chunks().0.iter().all(|half| u16::from_le_bytes(*half) & 0x7c00 != 0x7c00)
}

/// Unpacks as many components as `out` holds, from the one at `at` on.
pub(super) fn unpack(payload: &[u8], at: usize, out: &mut [[u8; COMPONENT_BYTES]]) {
    let (norm, halves) = split_factor(payload);
    let moved_norm = norm * MOVED;
    for (half, component) in halves.as_chunks().0[at..].iter().zip(out) {
        *component = (moved(u16::from_le_bytes(*half)) / moved_norm).to_le_bytes();
    }
}

/// Both `n` and the moved `n` must be normal numbers, so that moving does not round.
fn is_usable(norm: f32) -> bool {
    norm > 0.0 && norm.is_finite() && (norm * MOVED).is_normal()
}

/// A half's value times [`MOVED`], exactly. Widened with its sign, all of it moves at once; three copies of the sign
/// that come along go. (Sign and magnitude each for themselves take four times as long: the compiler's code then waits for
/// the division before.)
fn moved(half: u16) -> f32 {
    let widened = i32::from(half.cast_signed()).cast_unsigned();
    f32::from_bits(widened << LOST_BITS & 0x8fff_e000)
}

/// The `n` that divides the largest component's half to it, rounded, and its neighbours: the component was rounded too.
fn norms(significand: u32, largest: f32) -> [f32; 3] {
    #[expect(clippy::cast_precision_loss, reason = "it has sixteen bits")]
    let nearest = (significand * UPPERMOST) as f32 / largest;
    [nearest, nearest.next_down(), nearest.next_up()]
}

/// The search among norms that may be the right one.
struct Search {
    /// A block that did not come out right before. It is tried first: a vector of a handful of different values, of which
    /// many norms give all but a few components, would else be gone through many times.
    suspect: usize,
    /// Blocks that may still be checked.
    blocks_left: usize,
}

impl Search {
    fn over(components: usize) -> Self {
        Self { suspect: 0, blocks_left: components.div_ceil(CHECKED_AT_ONCE) * SCANS + SPARE_BLOCKS }
    }

    /// Writes the halves; whether dividing them gives every bit of every component again.
    fn reproduces(&mut self, components: &[[u8; COMPONENT_BYTES]], moved_norm: f32, halves: &mut [[u8; 2]]) -> bool {
        let blocks_left = &mut self.blocks_left;
        // Where no more may be checked, the next block counts as wrong.
        let is_wrong = |block: &usize| {
            let first = block * CHECKED_AT_ONCE;
            let part = first..components.len().min(first + CHECKED_AT_ONCE);
            let may_check = *blocks_left > 0;
            *blocks_left = blocks_left.saturating_sub(1);
            !(may_check && reproduces_block(&components[part.clone()], moved_norm, &mut halves[part]))
        };
        let blocks = 0..components.len().div_ceil(CHECKED_AT_ONCE);
        let wrong = iter::once(self.suspect).chain(blocks).find(is_wrong);
        self.suspect = wrong.unwrap_or(self.suspect);
        wrong.is_none()
    }
}

/// No way out of the loop before its end, so that the compiler can take several components at a time.
fn reproduces_block(components: &[[u8; COMPONENT_BYTES]], moved_norm: f32, halves: &mut [[u8; 2]]) -> bool {
    let mut different_bits = 0;
    for (component, out) in components.iter().zip(halves) {
        let component = f32::from_le_bytes(*component);
        let product = (component * moved_norm).to_bits();
        let rounded = ((product & 0x7fff_ffff) + (1 << (LOST_BITS - 1))) >> LOST_BITS;
        #[expect(clippy::cast_possible_truncation, reason = "no component is larger than the largest, which fits")]
        let half = (rounded | (product >> 16) & 0x8000) as u16;
        different_bits |= (moved(half) / moved_norm).to_bits() ^ component.to_bits();
        *out = half.to_le_bytes();
    }
    different_bits == 0
}

/// Significands of the largest component's half that bring a few other components onto halves too.
///
/// Let `r` be another component over the largest, scaled by a power of two to at most one. If the largest one's half
/// has significand `m`, the other's has `r * m`, which is whole, or half of an odd number if it came out below 1024.
/// Both components were rounded to 24 bits, so `2 * r * m` misses a whole number by up to 2 to the -11. The step of `r`
/// is `2 * r` modulo one, as a fraction of 2 to the 32: its product with `m` then shows by how much, and wraps at will.
fn significands(largest: f32, components: &[[u8; COMPONENT_BYTES]]) -> impl Iterator<Item = u32> {
    let steps = steps(largest, components);
    let fits = move |significand| misses(significand, steps) < 2 * MISS;
    // Nearly all groups hold none; asked as a whole, the compiler can take several at a time.
    let any_fits = move |first: &u32| (*first..*first + GROUP).fold(false, |any, significand| any | fits(significand));
    SIGNIFICANDS
        .step_by(GROUP as usize)
        .filter(any_fits)
        .flat_map(move |first| (first..first + GROUP).filter(move |s| fits(*s)))
}

/// Significands that are asked at a time.
const GROUP: u32 = 16;

/// How far from a whole number is let through: twice what rounding can do, 2 to the -10.
const MISS: u32 = 1 << 22;

/// Below twice [`MISS`] if no component misses a whole number by more than that.
fn misses(significand: u32, steps: [u32; COMPARED]) -> u32 {
    steps.iter().fold(0, |all, step| all | step.wrapping_mul(significand).wrapping_add(MISS))
}

/// Components that are compared with the largest: with three, the 1024 significands let a wrong one through once in
/// a hundred thousand times.
const COMPARED: usize = 3;

/// The steps of the first few components that tell anything: those of a significand that has not come before.
fn steps(largest: f32, components: &[[u8; COMPONENT_BYTES]]) -> [u32; COMPARED] {
    let of_largest = significand(largest);
    let (mut steps, mut seen, mut count) = ([0; COMPARED], [of_largest; COMPARED + 1], 0);
    for component in components.iter().map(|component| f32::from_le_bytes(*component)) {
        let own = significand(component);
        if component.is_normal() && !seen.contains(&own) {
            let doubled = if own <= of_largest { own << 33 } else { own << 32 };
            #[expect(clippy::cast_possible_truncation, reason = "modulo one")]
            let step = (doubled / of_largest) as u32;
            steps[count] = step;
            seen[count] = own;
            count += 1;
            if count == COMPARED {
                break;
            }
        }
    }
    steps
}

/// The significand of a normal number, 24 bits.
fn significand(number: f32) -> u64 {
    u64::from(number.to_bits() & 0x007f_ffff | 0x0080_0000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_vector_is_gone_through_more_often_than_is_said() {
        let components = [1.0_f32.to_le_bytes(); 1536];
        let (mut search, mut halves) = (Search::over(components.len()), [[0; 2]; 1536]);
        let mut scans = 0;
        while search.reproduces(&components, MOVED, &mut halves) {
            scans += 1;
        }
        assert_eq!((search.blocks_left, scans), (0, (24 * SCANS + SPARE_BLOCKS) / 25));
        assert!(
            !search.reproduces(&components, MOVED, &mut halves),
            "what may not be checked any more is not believed"
        );
    }
}
