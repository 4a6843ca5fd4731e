//! Vectors of every common type, read as f32: true f32 is accepted, everything else is rejected.

use proptest::prelude::*;

use super::*;

/// Generates vectors like those of models: normally distributed components, some much larger than the others.
fn unit_vectors(dimensions: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Vec<f64>> {
    (dimensions, any::<u64>(), 0..4_u32).prop_map(|(dimension, seed, outliers)| {
        let mut random = Random(seed);
        let mut components: Vec<f64> = (0..dimension).map(|_| random.normal()).collect();
        for _ in 0..outliers {
            let place = random.below(dimension);
            components[place] *= 20.0;
        }
        let length = components.iter().map(|component| component.powi(2)).sum::<f64>().sqrt();
        components.iter().map(|component| component / length).collect()
    })
}

/// The generator `SplitMix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("it is below a usize")
    }

    fn unit(&mut self) -> f64 {
        f64::from(u32::try_from(self.next() >> 32).expect("32 bits are left")) / 4_294_967_296.0
    }

    /// Returns the sum of twelve uniform numbers, which is close to normal.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

#[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is the purpose")]
fn narrow(component: f64) -> f32 {
    component as f32
}

fn bf16_bits(component: f64) -> u16 {
    u16::try_from(narrow(component).to_bits() >> 16).expect("16 bits are left")
}

fn of_bf16(component: f64) -> f32 {
    f32::from_bits(u32::from(bf16_bits(component)) << 16)
}

/// Quantises as services do: the largest component becomes 127.
fn int8(components: &[f64]) -> Vec<u8> {
    let largest = components.iter().fold(0.0_f64, |largest, component| largest.max(component.abs()));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "scaled to the range of an i8")]
    components.iter().map(|component| (component / largest * 127.0).round() as i8 as u8).collect()
}

fn is_accepted(bytes: &[u8]) -> bool {
    Vector::from_le_bytes(bytes).is_ok_and(|vector| is_evidently_f32(&vector))
}

fn bytes<const N: usize>(components: &[f64], write: impl Fn(f64) -> [u8; N]) -> Vec<u8> {
    components.iter().flat_map(|component| write(*component)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn f32_is_accepted_if_it_was_converted_from_f64_or_bf16(components in unit_vectors(8..=4096)) {
        prop_assert!(is_accepted(&bytes(&components, |component| narrow(component).to_le_bytes())));
        prop_assert!(is_accepted(&bytes(&components, |component| of_bf16(component).to_le_bytes())));
    }

    #[test]
    fn f64_is_never_accepted(components in unit_vectors(4..=4096)) {
        prop_assert!(!is_accepted(&bytes(&components, f64::to_le_bytes)));
        prop_assert!(!is_accepted(&bytes(&components, |component| f64::from(narrow(component)).to_le_bytes())));
        prop_assert!(!is_accepted(&bytes(&components, |component| f64::from(of_bf16(component)).to_le_bytes())));
        prop_assert!(!is_accepted(&bytes(&components, f64::to_be_bytes)));
    }

    #[test]
    fn f64_of_any_length_is_not_accepted(components in unit_vectors(16..=4096), length in 0.01..1_000.0_f64) {
        let scaled: Vec<f64> = components.iter().map(|component| component * length).collect();
        prop_assert!(!is_accepted(&bytes(&scaled, f64::to_le_bytes)));
        prop_assert!(!is_accepted(&bytes(&scaled, |component| f64::from(narrow(component)).to_le_bytes())));
        prop_assert!(!is_accepted(&bytes(&scaled, |component| f64::from(of_bf16(component)).to_le_bytes())));
    }

    #[test]
    fn halves_bytes_and_foreign_byte_orders_are_not_accepted(components in unit_vectors(64..=4096)) {
        let whole = &components[..components.len() / 32 * 32];
        prop_assert!(!is_accepted(&int8(whole)));
        prop_assert!(!is_accepted(&bytes(whole, |component| bf16_bits(component).to_le_bytes())));
        prop_assert!(!is_accepted(&bytes(whole, |component| narrow(component).to_be_bytes())));
        let binary: Vec<u8> = int8(whole).chunks(8).map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | bit >> 7)).collect();
        prop_assert!(components.len() < 1024 || !is_accepted(&binary));
    }
}

/// Small vectors of bytes are the weakest case. No property holds for all of them, so their rate is measured.
#[test]
fn at_most_ten_of_100_000_small_byte_vectors_are_accepted() {
    let (mut random, mut accepted) = (Random(1), 0);
    for _ in 0..100_000 {
        let components: Vec<f64> = (0..32).map(|_| random.normal()).collect();
        accepted += usize::from(is_accepted(&int8(&components)));
    }
    assert!(accepted <= 10, "{accepted} of 100,000");
}

#[test]
fn too_few_components_or_other_norms_prove_nothing() {
    let accepted = |components: &[f64]| is_accepted(&bytes(components, |component| narrow(component).to_le_bytes()));
    assert!(!accepted(&[1.0]) && !accepted(&[0.5; 4]));
    assert!(!accepted(&[0.5; 8]) && !accepted(&[0.2; 16]));
    assert!(accepted(&[0.25; 16]));
    assert!(!accepted(&[0.0, 0.5, 0.0, 0.5, 0.0, 0.5, 0.0, 0.5]));
}
