use proptest::prelude::*;

use super::*;
use crate::vector::{NotAVector, Vector};

const CODECS: [Codec; 4] = [Codec::Lossless, Codec::Bf16, Codec::Int8, Codec::F32];

/// Returns recorded answers of a live service, with their names.
fn recorded() -> Vec<(String, Vector)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/vectors");
    let files = std::fs::read_dir(folder).expect("the folder is there").map(|file| file.expect("it is listed").path());
    let vectors = files.filter(|path| path.extension().is_some_and(|extension| extension == "f32"));
    let read = |path: &std::path::PathBuf| std::fs::read(path).expect("it is readable");
    vectors
        .map(|path| (path.display().to_string(), Vector::from_le_bytes(&read(&path)).expect("it is a vector")))
        .collect()
}

fn one_minus_cosine(a: &Vector, b: &Vector) -> f64 {
    let dot = |a: &Vector, b: &Vector| -> f64 {
        a.components().zip(b.components()).map(|(a, b)| f64::from(a) * f64::from(b)).sum()
    };
    1.0 - dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn vector(components: &[f32]) -> Vector {
    Vector::from_components(components).expect("it is a vector")
}

/// Returns the value of a half's bits, by the definition of the format.
fn half_value(half: u16) -> f32 {
    let (exponent, significand) = (i32::from(half >> 10 & 0x1f), f32::from(half & 0x3ff));
    let magnitude = match exponent {
        0 => significand * (-24_f32).exp2(),
        _ => (1024.0 + significand) * f32::from(i16::try_from(exponent - 25).expect("it is small")).exp2(),
    };
    magnitude.copysign(if half >> 15 == 1 { -1.0 } else { 1.0 })
}

#[test]
fn recorded_vectors_pack_losslessly_into_two_bytes_per_component() {
    let recorded = recorded();
    assert!(recorded.len() >= 7, "the recordings must have been found");
    for (name, vector) in recorded {
        let packed = Packed::pack(&vector, Codec::Lossless);
        assert_eq!((packed.form(), packed.payload().len()), (Form::Ratio, 2 * vector.dimension() + 4), "{name}");
        assert_eq!(packed.unpack(), vector, "{name}");
        assert_eq!(packed, Packed::pack(&vector, Codec::Bf16), "bf16 rounds nothing that needs no rounding: {name}");
    }
}

#[test]
fn a_recorded_vector_with_one_irregular_component_stays_exact() {
    for (name, recorded) in recorded() {
        let mut components: Vec<f32> = recorded.components().collect();
        let last = components.len() - 1;
        components[last] = f32::from_bits(components[last].to_bits() ^ 1);
        let packed = Packed::pack(&vector(&components), Codec::Lossless);
        assert_eq!((packed.form(), packed.unpack()), (Form::F32, vector(&components)), "{name}");
    }
}

#[test]
fn lossy_codecs_stay_within_the_documented_cosine_error() {
    for (name, vector) in recorded() {
        let int8 = Packed::pack(&vector, Codec::Int8);
        assert_eq!((int8.form(), int8.payload().len()), (Form::Int8, vector.dimension() + 4), "{name}");
        let rounded = Packed { form: Form::Bf16, payload: rounded::pack(&vector).expect("it can be rounded") };
        let (by_int8, by_bf16) =
            (one_minus_cosine(&vector, &int8.unpack()), one_minus_cosine(&vector, &rounded.unpack()));
        assert!(by_int8 < 8e-5 && by_bf16 < 2e-6, "{name}: int8 {by_int8:.2e}, bf16 {by_bf16:.2e}");
    }
}

#[test]
fn vectors_with_extreme_components_stay_valid_in_every_codec() {
    let edges: [&[f32]; 9] = [
        &[1.0],
        &[-0.0, 0.0, 0.5],
        &[f32::MAX, 1.0],
        &[f32::MIN_POSITIVE / 4.0, 0.0],
        &[f32::from_bits(1)],
        &[1e-38, f32::from_bits(3), -0.0],
        &[1.0, 1e-30, -1e-45],
        &[f32::MAX, f32::MIN],
        &[1e30, 2e30],
    ];
    for components in edges {
        for codec in CODECS {
            let packed = Packed::pack(&vector(components), codec);
            let unpacked = packed.unpack();
            assert_eq!(unpacked.dimension(), components.len(), "{components:?} as {codec:?}");
            assert_eq!(Vector::from_le_bytes(unpacked.as_le_bytes()).as_ref(), Ok(&unpacked), "{codec:?}");
            if matches!(codec, Codec::Lossless | Codec::F32) {
                assert_eq!(unpacked, vector(components), "{codec:?}");
            }
        }
    }
    assert_eq!(Packed::pack(&vector(&[f32::MAX]), Codec::Bf16).form(), Form::F32, "rounding would make it infinite");
    for small in [1e-45, 1e-37] {
        let packed = Packed::pack(&vector(&[small]), Codec::Int8);
        assert_eq!(packed.form(), Form::F32, "there is no exact scale that small");
    }
}

#[test]
fn bf16_rounds_to_nearest_even() {
    let [below, even, odd, above] = [0x3f80_7fff, 0x3f80_8000, 0x3f81_8000, 0xbf81_8001].map(f32::from_bits);
    let packed = rounded::pack(&vector(&[below, even, odd, above])).expect("it can be rounded");
    let halves: Vec<u16> = packed.as_chunks().0.iter().map(|half| u16::from_le_bytes(*half)).collect();
    assert_eq!(halves, [0x3f80, 0x3f80, 0x3f82, 0xbf82]);
}

#[test]
fn vectors_with_few_distinct_values_are_packed() {
    let one_of_many = |at: usize| (0..1536).map(|n| f32::from(u8::from(n == at)) * 0.3).collect::<Vec<_>>();
    let few_values: Vec<f32> = (0..1536_u16).map(|n| f32::from(n % 4) / 3.0).collect();
    for components in [one_of_many(0), one_of_many(1535), few_values, vec![0.1; 256]] {
        assert_eq!(Packed::pack(&vector(&components), Codec::Lossless).form(), Form::Ratio);
    }
}

#[test]
fn invalid_packed_payloads_are_refused() {
    let refused = |form, dimension, payload: &[u8]| Packed::from_parts(form, dimension, payload).expect_err("no");
    assert_eq!(refused(Form::F32, 2, &[0; 4]), NotPacked::Length);
    assert_eq!(refused(Form::Int8, usize::MAX, &[]), NotPacked::Length);
    assert_eq!(refused(Form::Ratio, usize::MAX, &[]), NotPacked::Length);
    assert_eq!(refused(Form::Bf16, 0, &[]), NotPacked::Vector(NotAVector::Empty));
    assert_eq!(refused(Form::F32, 1, &f32::NAN.to_le_bytes()), NotPacked::Vector(NotAVector::NotFinite));
    assert_eq!(refused(Form::Bf16, 1, &[0x80, 0x7f]), NotPacked::Vector(NotAVector::NotFinite));
    for norm in [f32::NAN, 0.0, -1.0, f32::INFINITY, 1e-10] {
        let payload = [&norm.to_le_bytes()[..], &[0, 0x3c]].concat();
        assert_eq!(refused(Form::Ratio, 1, &payload), NotPacked::Factor, "{norm}");
    }
    for scale in [f32::NAN, 0.0, -0.5, f32::INFINITY, 1e-40] {
        let payload = [&scale.to_le_bytes()[..], &[1]].concat();
        assert_eq!(refused(Form::Int8, 1, &payload), NotPacked::Factor, "{scale}");
    }
    let infinite_half = [&1.0_f32.to_le_bytes()[..], &[0, 0x7c]].concat();
    assert_eq!(refused(Form::Ratio, 1, &infinite_half), NotPacked::Factor);
    let zero = [&1.0_f32.to_le_bytes()[..], &[0]].concat();
    assert_eq!(refused(Form::Int8, 1, &zero), NotPacked::Vector(NotAVector::AllZero));
    assert_eq!(Form::from_number(4), None);
}

/// Generates any f32, with special values at a higher rate.
fn any_component() -> impl Strategy<Value = f32> {
    let odd = [0.0, -0.0, f32::MAX, f32::MIN_POSITIVE, f32::NAN, f32::INFINITY, f32::from_bits(1), 1.0];
    prop_oneof![
        4 => any::<u32>().prop_map(f32::from_bits),
        2 => -1.0_f32..1.0,
        1 => (0_u32..0x0080_0000).prop_map(f32::from_bits),
        1 => proptest::sample::select(odd.to_vec()),
    ]
}

/// Generates halves, finite and not all zero.
fn halves() -> impl Strategy<Value = Vec<u16>> {
    let half = prop_oneof![
        8 => 0_u16..0x7c00,
        1 => 0_u16..0x0400,
        1 => Just(0_u16),
    ];
    let signed = (half, any::<bool>()).prop_map(|(half, negative)| half | u16::from(negative) << 15);
    proptest::collection::vec(signed, 1..200)
        .prop_filter("all zero", |halves| halves.iter().any(|half| half & 0x7fff != 0))
}

proptest! {
    #[test]
    fn lossless_packing_keeps_every_bit_of_any_vector(
        components in proptest::collection::vec(any_component(), 0..900)
    ) {
        let Ok(vector) = Vector::from_components(&components) else {
            let unfit = components.iter().any(|component| !component.is_finite());
            prop_assert!(unfit || components.iter().all(|component| *component == 0.0));
            return Ok(());
        };
        prop_assert_eq!(Packed::pack(&vector, Codec::Lossless).unpack(), vector);
    }

    /// The norm's range keeps quotients normal numbers, because subnormal quotients are rounded twice and need
    /// not keep the form.
    #[test]
    fn half_precision_ratios_of_any_norm_take_two_bytes_per_component(
        halves in halves(), norm in 1_u32 << 23..0x007f_ffff | 1 << 23, exponent in 117_u32..150
    ) {
        let norm = f32::from_bits(norm & 0x007f_ffff | exponent << 23);
        let components: Vec<f32> = halves.iter().map(|half| half_value(*half) / norm).collect();
        let packed = Packed::pack(&vector(&components), Codec::Lossless);
        prop_assert_eq!(packed.form(), Form::Ratio);
        prop_assert_eq!(packed.unpack(), vector(&components));
    }

    #[test]
    fn a_vector_with_one_irregular_component_is_packed_exactly(
        halves in halves(), norm in 1.0_f32..2.0, place in any::<prop::sample::Index>()
    ) {
        let mut components: Vec<f32> = halves.iter().map(|half| half_value(*half) / norm).collect();
        let place = place.index(components.len());
        components[place] = f32::from_bits(components[place].to_bits() ^ 1);
        if let Ok(vector) = Vector::from_components(&components) {
            prop_assert_eq!(Packed::pack(&vector, Codec::Lossless).unpack(), vector);
        }
    }

    #[test]
    fn a_packed_vector_round_trips_through_its_parts(
        components in proptest::collection::vec(-1.0_f32..1.0, 1..900), codec in proptest::sample::select(&CODECS[..])
    ) {
        let Ok(vector) = Vector::from_components(&components) else { return Ok(()) };
        let packed = Packed::pack(&vector, codec);
        let read = Packed::from_parts(packed.form(), packed.dimension(), packed.payload());
        prop_assert_eq!(read.as_ref(), Ok(&packed));
        let mut bytes = vec![7];
        packed.write_le_bytes(&mut bytes);
        let unpacked = packed.unpack();
        prop_assert_eq!(&bytes[1..], unpacked.as_le_bytes());
        prop_assert_eq!(packed.dimension(), vector.dimension());
    }

    #[test]
    fn pieces_end_on_base64_boundaries(dimension in 1_usize..2_000) {
        for codec in CODECS {
            let packed = Packed::pack(&vector(&vec![0.1; dimension]), codec);
            let mut lengths = Vec::new();
            packed.for_each_piece(|piece| lengths.push(piece.len()));
            let (_, whole) = lengths.split_last().expect("there is a piece");
            prop_assert!(whole.iter().all(|length| length % 12 == 0));
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_unpack_to_a_vector(
        number in 0_u8..5, dimension in 0_usize..40, payload in proptest::collection::vec(any::<u8>(), 0..100)
    ) {
        let Some(form) = Form::from_number(number) else { return Ok(()) };
        if let Ok(packed) = Packed::from_parts(form, dimension, &payload) {
            prop_assert_eq!(packed.unpack().dimension(), dimension);
        }
    }
}
