//! Vectors with components of the form `h / n` rounded to f32: one f32 `n` for all, and a half-precision `h` for each.
//!
//! Embedding services compute in half precision and divide by the norm at the end, so their answers have this form. The
//! answer contains neither `h` nor `n`; both are derived from the numbers alone. Scaling both by a power of two changes
//! no quotient. So the half of the largest component may be assumed to lie in the uppermost range of halves, where its
//! significand is one of 1024. Each significand implies an `n`, up to rounding. Hardly any but the right one maps three
//! other components onto significands of eleven bits. A candidate is accepted only after it has reproduced every
//! component bit for bit.

use std::iter;
use std::sync::Arc;

use super::form::Form;
use super::payload::{largest_magnitude, new_payload, parts_mut, split_factor};
use crate::vector::{COMPONENT_BYTES, Vector};

/// A half's bits, moved to their places in an f32, make a number that is too small by this factor, 2 to the -112: the
/// difference of the exponents' biases. This also holds for subnormal halves.
const MOVED: f32 = f32::from_bits((127 - 112) << 23);

/// Number of bits by which an f32's significand is longer than a half's.
const LOST_BITS: u32 = 13;

/// Significands of the half of the largest component, and the power of two that scales them to the uppermost range.
const SIGNIFICANDS: std::ops::Range<u32> = 1024..2048;
const UPPERMOST: u32 = 32;

/// Limits of the search: it may check `SCANS` times as many blocks as the vector has, plus `SPARE_BLOCKS`. Real vectors
/// need few checks. A vector that was crafted to need many is not worth the time.
const SCANS: usize = 16;
const SPARE_BLOCKS: usize = 512;

/// Number of components that are checked before the result is tested.
const CHECKED_AT_ONCE: usize = 64;

/// Returns the payload if every component has the form.
pub(super) fn pack(vector: &Vector) -> Option<Arc<[u8]>> {
    let components = vector.as_le_bytes().as_chunks().0;
    let largest = largest_magnitude(components);
    let (mut payload, mut search) = (None, Search::over(components.len()));
    // Candidates are generated lazily, so the search ends at the first one that reproduces the vector.
    let found = significands(largest, components).flat_map(|significand| norms(significand, largest));
    for norm in found.filter(|norm| is_usable(*norm)) {
        // A vector without candidates costs no allocation.
        let payload = payload.get_or_insert_with(|| new_payload(Form::Ratio, components.len()));
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

/// Returns true if unpacking can use `n`, and every half is finite.
pub(super) fn is_sound(payload: &[u8]) -> bool {
    let (norm, halves) = split_factor(payload);
    // A half with all exponent bits set is infinite or NaN.
    is_usable(norm) && halves.as_chunks().0.iter().all(|half| u16::from_le_bytes(*half) & 0x7c00 != 0x7c00)
}

/// Unpacks as many components as `out` holds, starting at component `at`.
pub(super) fn unpack(payload: &[u8], at: usize, out: &mut [[u8; COMPONENT_BYTES]]) {
    let (norm, halves) = split_factor(payload);
    let moved_norm = norm * MOVED;
    for (half, component) in halves.as_chunks().0[at..].iter().zip(out) {
        *component = (moved(u16::from_le_bytes(*half)) / moved_norm).to_le_bytes();
    }
}

/// Returns true if both `n` and the moved `n` are normal numbers, so moving does not round.
fn is_usable(norm: f32) -> bool {
    norm > 0.0 && norm.is_finite() && (norm * MOVED).is_normal()
}

/// Returns a half's value times [`MOVED`], exactly. Sign extension lets one shift move sign and magnitude together; the
/// mask then clears three extra copies of the sign. Moving sign and magnitude separately takes four times as long,
/// because the compiled code then waits for the previous division.
fn moved(half: u16) -> f32 {
    let widened = i32::from(half.cast_signed()).cast_unsigned();
    f32::from_bits(widened << LOST_BITS & 0x8fff_e000)
}

/// Returns the `n` that divides the largest component's half to that component, and both neighbours of `n`, because the
/// component was rounded too.
fn norms(significand: u32, largest: f32) -> [f32; 3] {
    #[expect(clippy::cast_precision_loss, reason = "it has sixteen bits")]
    let nearest = (significand * UPPERMOST) as f32 / largest;
    [nearest, nearest.next_down(), nearest.next_up()]
}

/// Search among the candidate norms.
struct Search {
    /// The last block that failed. It is tried first. Otherwise a vector with a handful of different values would be
    /// scanned many times, because many norms reproduce all but a few of its components.
    suspect: usize,
    /// Number of blocks that may still be checked.
    blocks_left: usize,
}

impl Search {
    fn over(components: usize) -> Self {
        Self { suspect: 0, blocks_left: components.div_ceil(CHECKED_AT_ONCE) * SCANS + SPARE_BLOCKS }
    }

    /// Writes the halves. Returns true if dividing them reproduces every bit of every component.
    fn reproduces(&mut self, components: &[[u8; COMPONENT_BYTES]], moved_norm: f32, halves: &mut [[u8; 2]]) -> bool {
        let blocks_left = &mut self.blocks_left;
        // After the limit is used up, the next block counts as wrong.
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

/// Writes the halves of one block, and returns true if all its components are reproduced. The loop has no early exit,
/// which lets the compiler vectorise it.
fn reproduces_block(components: &[[u8; COMPONENT_BYTES]], moved_norm: f32, halves: &mut [[u8; 2]]) -> bool {
    let mut different_bits = 0;
    for (component, out) in components.iter().zip(halves) {
        let component = f32::from_le_bytes(*component);
        let product = (component * moved_norm).to_bits();
        // Half of the last kept bit is added, so the shift rounds to the nearest half.
        let rounded = ((product & 0x7fff_ffff) + (1 << (LOST_BITS - 1))) >> LOST_BITS;
        #[expect(clippy::cast_possible_truncation, reason = "no component is larger than the largest, which fits")]
        let half = (rounded | (product >> 16) & 0x8000) as u16;
        different_bits |= (moved(half) / moved_norm).to_bits() ^ component.to_bits();
        *out = half.to_le_bytes();
    }
    different_bits == 0
}

/// Returns the significands of the largest component's half that map a few other components onto halves too.
///
/// Let `r` be another component divided by the largest, scaled by a power of two to at most one. If the half of the
/// largest component has significand `m`, the half of the other has `r * m`. That is a whole number, or half of an odd
/// number if it is below 1024. Both components were rounded to 24 bits, so `2 * r * m` deviates from a whole number by
/// up to 2 to the -11. The step of `r` is `2 * r` modulo one, as a fraction of 2 to the 32. The product of the step and
/// `m` shows the deviation, and may wrap around.
fn significands(largest: f32, components: &[[u8; COMPONENT_BYTES]]) -> impl Iterator<Item = u32> {
    let steps = steps(largest, components);
    let fits = move |significand| misses(significand, steps) < 2 * MISS;
    // Most groups contain no match. Testing a whole group lets the compiler vectorise the test.
    let any_fits = move |first: &u32| (*first..*first + GROUP).fold(false, |any, significand| any | fits(significand));
    SIGNIFICANDS
        .step_by(GROUP as usize)
        .filter(any_fits)
        .flat_map(move |first| (first..first + GROUP).filter(move |s| fits(*s)))
}

/// Number of significands that are tested together.
const GROUP: u32 = 16;

/// Accepted deviation from a whole number: 2 to the -10, twice the largest rounding error.
const MISS: u32 = 1 << 22;

/// Returns a value below twice [`MISS`] if no component deviates from a whole number by more than [`MISS`].
fn misses(significand: u32, steps: [u32; COMPARED]) -> u32 {
    steps.iter().fold(0, |all, step| all | step.wrapping_mul(significand).wrapping_add(MISS))
}

/// Number of components that are compared with the largest. With three, the 1024 significands let a wrong one through
/// once in a hundred thousand times.
const COMPARED: usize = 3;

/// Returns the steps of the first few components with a new significand. A repeated significand adds no information.
fn steps(largest: f32, components: &[[u8; COMPONENT_BYTES]]) -> [u32; COMPARED] {
    let of_largest = significand(largest);
    // The significand of the largest counts as seen. Steps that stay zero fit every candidate.
    let (mut steps, mut seen, mut count) = ([0; COMPARED], [of_largest; COMPARED + 1], 0);
    for component in components.iter().map(|component| f32::from_le_bytes(*component)) {
        let own = significand(component);
        if component.is_normal() && !seen.contains(&own) {
            // A larger significand is halved, so `r` is at most one.
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

/// Returns the significand of a normal number, 24 bits.
fn significand(number: f32) -> u64 {
    u64::from(number.to_bits() & 0x007f_ffff | 0x0080_0000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_scans_of_a_vector_is_bounded() {
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
