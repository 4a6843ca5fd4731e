//! Cosine similarity of packed vectors with one query vector.

use super::packed::Packed;
use super::{COMPONENT_BYTES, Vector};

/// Sums that are kept side by side. Independent sums let the compiler use vector instructions, and each of them stays
/// small, which keeps the rounding error of long vectors low.
const LANES: usize = 16;

/// A query vector, prepared for many comparisons.
#[derive(Clone, Debug)]
pub struct CosineQuery {
    /// The components, divided by the length of the vector.
    unit: Vec<f32>,
}

impl CosineQuery {
    /// Prepares a query vector.
    pub fn new(query: &Vector) -> Self {
        let components: Vec<f32> = query.components().collect();
        let unit = Vector::of_unit_length(&components).map_or(components, |unit| unit.components().collect());
        Self { unit }
    }

    /// Returns the number of components.
    pub fn dimension(&self) -> usize {
        self.unit.len()
    }

    /// Returns the cosine of the angle between both vectors, from -1 to 1, or `None` if their dimensions differ.
    pub fn cosine(&self, candidate: &Packed) -> Option<f32> {
        if candidate.dimension() != self.dimension() {
            return None;
        }
        // A large component would overflow its square in f32, so such vectors are scaled first. They are rare.
        Some(self.scaled_cosine(candidate, 1.0).unwrap_or_else(|| {
            let scale = largest(candidate).recip().clamp(f32::MIN_POSITIVE, f32::MAX);
            self.scaled_cosine(candidate, scale).unwrap_or(0.0)
        }))
    }

    /// Returns the cosine of the candidate times `scale`, or `None` if its squared length is out of the range of f32.
    fn scaled_cosine(&self, candidate: &Packed, scale: f32) -> Option<f32> {
        let (mut products, mut squares, mut at) = ([0_f32; LANES], [0_f32; LANES], 0);
        candidate.for_each_piece(|piece| {
            let components = piece.as_chunks::<COMPONENT_BYTES>().0;
            let unit = &self.unit[at..at + components.len()];
            at += components.len();
            let (whole_units, last_units) = unit.as_chunks::<LANES>();
            let (whole, last) = components.as_chunks::<LANES>();
            for (units, components) in whole_units.iter().zip(whole) {
                add(&mut products, &mut squares, (units, components), scale);
            }
            add(&mut products, &mut squares, (last_units, last), scale);
        });
        let sum = |lanes: [f32; LANES]| lanes.into_iter().map(f64::from).sum::<f64>();
        let squared_length = sum(squares);
        // Squares below the smallest normal number have lost their digits.
        let is_exact = squared_length.is_finite() && squared_length >= f64::from(f32::MIN_POSITIVE) * 1e6;
        #[expect(clippy::cast_possible_truncation, reason = "a cosine needs no more digits than its vectors have")]
        is_exact.then(|| (sum(products) / squared_length.sqrt()).clamp(-1.0, 1.0) as f32)
    }
}

/// Adds up to [`LANES`] products and squares, each to the sum of its lane.
#[inline]
fn add(
    products: &mut [f32; LANES],
    squares: &mut [f32; LANES],
    (units, components): (&[f32], &[[u8; COMPONENT_BYTES]]),
    scale: f32,
) {
    for (lane, (unit, component)) in units.iter().zip(components).enumerate() {
        let component = f32::from_le_bytes(*component) * scale;
        products[lane] += unit * component;
        squares[lane] += component * component;
    }
}

/// Returns the largest magnitude of a component.
fn largest(vector: &Packed) -> f32 {
    let mut largest = 0_f32;
    vector.for_each_piece(|piece| {
        let magnitudes = piece.as_chunks::<COMPONENT_BYTES>().0.iter().map(|bytes| f32::from_le_bytes(*bytes).abs());
        largest = magnitudes.fold(largest, f32::max);
    });
    largest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::vector::packed::Codec;

    fn vector(components: &[f32]) -> Vector {
        Vector::from_components(components).expect("it is a vector")
    }

    fn cosine(query: &[f32], candidate: &[f32]) -> Option<f32> {
        CosineQuery::new(&vector(query)).cosine(&Packed::from(vector(candidate)))
    }

    /// The definition, in f64.
    fn exact(query: &[f32], candidate: &[f32]) -> f64 {
        let dot =
            |one: &[f32], other: &[f32]| one.iter().zip(other).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
        dot(query, candidate) / (dot(query, query).sqrt() * dot(candidate, candidate).sqrt())
    }

    #[test]
    fn known_angles_have_their_cosine() {
        assert_eq!(cosine(&[1.0, 0.0], &[3.0, 0.0]), Some(1.0));
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 2.0]), Some(0.0));
        assert_eq!(cosine(&[2.0, 0.0], &[-5.0, 0.0]), Some(-1.0));
        assert_eq!(cosine(&[1.0, 0.0], &[1.0, 0.0, 0.0]), None, "the dimensions differ");
    }

    #[test]
    fn very_large_and_very_small_components_neither_overflow_nor_vanish() {
        for size in [f32::MAX, 1.0e30, 1.0e-30, f32::MIN_POSITIVE, 1.0e-44] {
            let found = cosine(&[1.0, 1.0], &[size, 0.0]).expect("equal dimensions");
            assert!((f64::from(found) - 0.5_f64.sqrt()).abs() < 1e-6, "{size:e}: {found}");
            let found = cosine(&[size, 0.0], &[1.0, 1.0]).expect("equal dimensions");
            assert!((f64::from(found) - 0.5_f64.sqrt()).abs() < 1e-6, "{size:e} as query: {found}");
        }
    }

    proptest! {
        #[test]
        fn a_cosine_agrees_with_its_definition(
            pairs in prop::collection::vec((-1.0_f32..1.0, -1.0_f32..1.0), 1..3000),
        ) {
            let (query, candidate): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            let is_vector = |components: &[f32]| Vector::from_components(components).is_ok();
            prop_assume!(is_vector(&query) && is_vector(&candidate));
            let found = f64::from(cosine(&query, &candidate).expect("equal dimensions"));
            prop_assert!((found - exact(&query, &candidate)).abs() < 2e-6, "{found} {}", exact(&query, &candidate));
        }

        #[test]
        fn a_packed_candidate_has_the_cosine_of_its_unpacked_vector(
            components in prop::collection::vec(-1.0_f32..1.0, 1..2000),
        ) {
            prop_assume!(Vector::from_components(&components).is_ok());
            let query = CosineQuery::new(&vector(&components));
            for codec in [Codec::Lossless, Codec::Bf16, Codec::Int8] {
                let packed = Packed::pack(&vector(&components), codec);
                let unpacked = Packed::from(packed.unpack());
                prop_assert_eq!(query.cosine(&packed), query.cosine(&unpacked));
            }
        }
    }
}
