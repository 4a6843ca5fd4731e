//! Watermark of made-up vectors: a relation within the first 64 components, by which they can be found again.
//!
//! The components form 32 pairs. In each pair the second component equals the first one, or its negative, as a fixed
//! pattern of 32 signs says. Rounding to halves, scaling and quantisation treat a number and its negative alike, so the
//! relation survives them exactly. It survives a cut to 64 components or more as well.
//!
//! A real vector with 64 components that all have the same magnitude, the worst case, shows the pattern by chance with a
//! probability of 2^-32, which is 2.3e-10. For any other vector the magnitudes have to agree, too.

/// Number of components that carry the watermark. Shorter vectors have none.
pub const WATERMARK_COMPONENTS: usize = 64;

/// Number of pairs.
const PAIRS: usize = WATERMARK_COMPONENTS / 2;

/// Signs of the pairs, from the highest bit on: 1 means that the second component is the negative of the first one.
/// They are the first 32 bits of the SHA-256 of `vecho mock`, so they have nothing to do with any model.
pub const WATERMARK_SIGNS: u32 = 0xdea4_09e8;

/// Least magnitude of a marked component, relative to the root mean square of the first components of the pairs. A
/// component that a coarse quantisation rounds to zero would hide its sign.
const LEAST_SHARE: f32 = 0.05;

/// Marks a vector that is about to be scaled to its final length. Leaves vectors of less than 64 components alone.
pub fn mark(components: &mut [f32]) {
    let Some(marked) = components.first_chunk_mut::<WATERMARK_COMPONENTS>() else {
        return;
    };
    let pairs = marked.as_chunks_mut::<2>().0;
    let square = pairs.iter().map(|[first, _]| first * first).sum::<f32>();
    #[expect(clippy::cast_precision_loss, reason = "the number of pairs is small")]
    let least = LEAST_SHARE * (square / PAIRS as f32).sqrt();
    for (pair, [first, second]) in pairs.iter_mut().enumerate() {
        *first = first.signum() * first.abs().max(least);
        *second = sign(pair) * *first;
    }
}

/// Returns true if a vector has the watermark. The numbers may have any scale.
pub fn is_marked(components: &[f64]) -> bool {
    let Some(marked) = components.first_chunk::<WATERMARK_COMPONENTS>() else {
        return false;
    };
    // A pair of zeros says nothing: a vector with few components that are not zero would have the watermark.
    #[expect(clippy::float_cmp, reason = "the relation is exact")]
    let is_pair =
        |(pair, [first, second]): (usize, &[f64; 2])| *first != 0.0 && *second == f64::from(sign(pair)) * first;
    marked.as_chunks::<2>().0.iter().enumerate().all(is_pair)
}

fn sign(pair: usize) -> f32 {
    if WATERMARK_SIGNS << pair >> (PAIRS - 1) == 1 { -1.0 } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn as_f64(components: &[f32]) -> Vec<f64> {
        components.iter().copied().map(f64::from).collect()
    }

    proptest! {
        #[test]
        fn a_mark_survives_scaling_halves_quantisation_and_a_cut(
            mut components in prop::collection::vec(-1.0_f32..1.0, 64..400),
            scale in 1e-3_f32..1e3,
            kept in 64_usize..400,
        ) {
            prop_assume!(components.iter().take(64).any(|component| component.abs() > 0.01));
            mark(&mut components);
            components.truncate(kept);
            let scaled: Vec<f32> = components.iter().map(|component| component * scale).collect();
            prop_assert!(is_marked(&as_f64(&scaled)));
            let largest = scaled.iter().copied().fold(0.0_f32, |most, component| most.max(component.abs()));
            let int8: Vec<f64> = scaled.iter().map(|component| f64::from((component / largest * 127.0).round())).collect();
            prop_assert!(is_marked(&int8));
            // The upper 16 bits are the bfloat16 that is nearest to zero.
            let bf16: Vec<f32> = scaled.iter().map(|one| f32::from_bits(one.to_bits() & 0xffff_0000)).collect();
            prop_assert!(is_marked(&as_f64(&bf16)));
        }

        #[test]
        fn random_vectors_are_not_marked(components in prop::collection::vec(-1.0_f64..1.0, 64..100)) {
            prop_assert!(!is_marked(&components));
        }
    }

    #[test]
    fn short_sparse_and_almost_marked_vectors_are_not_marked() {
        let mut marked = vec![1.0_f32; 64];
        mark(&mut marked);
        assert!(is_marked(&as_f64(&marked)));
        assert!(!is_marked(&as_f64(&marked[..63])));
        assert!(!is_marked(&[0.0; 64]));
        for place in 0..64 {
            let mut other = as_f64(&marked);
            other[place] = -other[place];
            assert!(!is_marked(&other), "{place}");
            other[place] = 0.0;
            assert!(!is_marked(&other), "{place}");
        }
        let mut short = vec![1.0; 63];
        mark(&mut short);
        assert_eq!(short, vec![1.0; 63]);
    }

    #[test]
    fn recorded_vectors_of_services_are_not_marked_and_agree_in_few_pairs() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/vectors");
        let mut seen = 0;
        for entry in fs::read_dir(folder).expect("the fixtures are there") {
            let path = entry.expect("a fixture is readable").path();
            if path.extension().is_none_or(|extension| extension != "f32") {
                continue;
            }
            let bytes = fs::read(&path).expect("a fixture is readable");
            let components: Vec<f64> =
                bytes.as_chunks::<4>().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect();
            // Each window of 64 is a vector of its own for this purpose.
            for window in components.as_chunks::<64>().0 {
                assert!(!is_marked(window), "{}", path.display());
                let equal = window.as_chunks::<2>().0.iter().filter(|[one, two]| one.abs().eq(&two.abs())).count();
                assert!(equal < 4, "{}: {equal} of 32 pairs have equal magnitudes", path.display());
                seen += 1;
            }
        }
        assert!(seen > 100, "{seen}");
    }
}
