//! Checks whether the bytes of a vector are f32, for base64 of unknown servers.
//!
//! Nearly all models answer with vectors of Euclidean length 1. Bytes of another type, read as f32, do not
//! have that length:
//!
//! * The upper half of an f64 `x` with 2^-15 <= |x| < 2, read as f32, has a magnitude from 0.5 to 2. The largest
//!   component of a vector of length 1 and up to 4,096 components is at least 2^-6, which reads as 1.125. So the length
//!   exceeds 1 already. The lower halves are random, or zero if the numbers were bf16.
//! * int8, binary and big-endian numbers give random exponents: one component in two exceeds 1.
//! * Two bf16, read as f32, nearly equal the second of them, and half of the components rarely have a length of 1. If
//!   one large component makes up for that, the lower halves are the evidence. In f32 they are random or zero; here
//!   nearly all are numbers of usual size.

use crate::vector::Vector;

/// Minimum number of components that suffices as evidence.
const MIN_COMPONENTS: usize = 8;

/// Maximum difference of the squared length from 1: 1 % of the length.
const MAX_DIFFERENCE: f64 = 0.02;

/// Returns true if the vector has a length of 1 as f32, and not as f64.
pub(super) fn is_evidently_f32(vector: &Vector) -> bool {
    let every_second_is_zero = || vector.components().step_by(2).all(|component| component == 0.0);
    let length_squared = || vector.components().map(|component| f64::from(component).powi(2)).sum::<f64>();
    vector.dimension() >= MIN_COMPONENTS
        && is_one(length_squared())
        && !every_second_is_zero()
        && !is_evidently_f64(vector)
        && !has_bf16_halves(vector)
}

/// Returns true if more than three in four lower halves are bf16 numbers from 2^-20 to 2. One random half in twelve is.
fn has_bf16_halves(vector: &Vector) -> bool {
    let is_usual = |component: &f32| (107..=127).contains(&(component.to_bits() >> 7 & 0xff));
    vector.components().filter(is_usual).count() * 4 > vector.dimension() * 3
}

/// Returns true if the bytes of the vector have a length of 1 as f64.
pub(super) fn is_evidently_f64(vector: &Vector) -> bool {
    let (wide, rest) = vector.as_le_bytes().as_chunks::<8>();
    rest.is_empty() && is_one(wide.iter().map(|bytes| f64::from_le_bytes(*bytes).powi(2)).sum())
}

fn is_one(length_squared: f64) -> bool {
    (length_squared - 1.0).abs() <= MAX_DIFFERENCE
}

#[cfg(test)]
#[path = "proof_tests.rs"]
mod tests;
