//! Every coding decodes the output of an encoder, and rejects everything else, in bounded memory.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;

use super::header::MAX_CODINGS;
use super::inflate::STEP_BYTES;
use super::*;

const ALL: [Coding; 4] = [Coding::Gzip, Coding::Deflate, Coding::Brotli, Coding::Zstd];

fn encode(coding: Coding, plain: &[u8]) -> Vec<u8> {
    match coding {
        Coding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(plain).expect("memory takes everything");
            encoder.finish().expect("memory takes everything")
        }
        Coding::Deflate => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(plain).expect("memory takes everything");
            encoder.finish().expect("memory takes everything")
        }
        Coding::Brotli => {
            let params = brotli::enc::BrotliEncoderParams { quality: 3, ..Default::default() };
            let mut encoded = Vec::new();
            brotli::BrotliCompress(&mut &*plain, &mut encoded, &params).expect("memory takes everything");
            encoded
        }
        Coding::Zstd => {
            let mut context = zstd_safe::CCtx::create();
            context.set_parameter(zstd_safe::CParameter::ChecksumFlag(true)).expect("a checksum is possible");
            let mut encoded = Vec::with_capacity(zstd_safe::compress_bound(plain.len()));
            context.compress2(&mut encoded, plain).expect("there is room");
            encoded
        }
    }
}

fn encode_all(codings: &[Coding], plain: &[u8]) -> Bytes {
    codings.iter().fold(plain.to_vec(), |body, coding| encode(*coding, &body)).into()
}

/// Decodes a body, and checks the size of each step.
fn decode(codings: &[Coding], body: impl Into<Bytes>) -> Result<Bytes, Undecodable> {
    let mut decoding = Decoding::new(codings.to_vec(), body.into());
    loop {
        match decoding.step()? {
            Step::Done(plain) => return Ok(plain),
            Step::More { added, .. } => assert!(added <= STEP_BYTES),
        }
    }
}

/// Generates bytes that compress well, badly, or not at all.
fn bodies() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..2_000),
        (any::<u8>(), 0..300_000_usize).prop_map(|(byte, count)| vec![byte; count]),
        (prop::collection::vec(any::<u8>(), 1..500), 1..400_usize).prop_map(|(part, times)| part.repeat(times)),
    ]
}

fn codings() -> impl Strategy<Value = Vec<Coding>> {
    prop::collection::vec(prop::sample::select(ALL.to_vec()), 1..=MAX_CODINGS)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn an_encoded_body_round_trips(plain in bodies(), codings in codings()) {
        prop_assert_eq!(decode(&codings, encode_all(&codings, &plain)), Ok(Bytes::from(plain)));
    }

    #[test]
    fn a_truncated_body_is_refused(plain in bodies(), coding in prop::sample::select(ALL.to_vec()), cut in any::<prop::sample::Index>()) {
        let encoded = encode(coding, &plain);
        let length = cut.index(encoded.len());
        prop_assert_eq!(decode(&[coding], encoded[..length].to_vec()), Err(Undecodable));
    }

    #[test]
    fn a_body_with_trailing_bytes_is_refused(plain in bodies(), coding in prop::sample::select(ALL.to_vec()), tail in prop::collection::vec(any::<u8>(), 1..9)) {
        let encoded = [encode(coding, &plain), tail].concat();
        prop_assert_eq!(decode(&[coding], encoded), Err(Undecodable));
    }

    #[test]
    fn concatenated_members_and_frames_are_decoded_together(parts in prop::collection::vec(bodies(), 1..4)) {
        for coding in [Coding::Gzip, Coding::Zstd] {
            let encoded: Vec<u8> = parts.iter().flat_map(|part| encode(coding, part)).collect();
            prop_assert_eq!(decode(&[coding], encoded), Ok(Bytes::from(parts.concat())));
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_decoded_without_a_panic(body in prop::collection::vec(any::<u8>(), 0..300), codings in codings()) {
        let _ = decode(&codings, body);
    }

    #[test]
    fn a_changed_byte_never_changes_a_body_that_has_a_checksum(plain in bodies(), at in any::<prop::sample::Index>(), mask in 1..=255_u8) {
        for coding in [Coding::Gzip, Coding::Deflate, Coding::Zstd] {
            let mut encoded = encode(coding, &plain);
            let place = at.index(encoded.len());
            encoded[place] ^= mask;
            if let Ok(decoded) = decode(&[coding], encoded) {
                prop_assert_eq!(&decoded[..], &plain[..]);
            }
        }
    }
}

#[test]
fn a_decompression_bomb_grows_in_bounded_steps() {
    const PART_BYTES: usize = 1 << 20;
    const BOUND_BYTES: usize = 4 << 20;
    let zeros = vec![0; PART_BYTES];
    // 10 GB of zeros, in members of 1 MB and in two codings, are a few hundred kilobytes.
    let member = encode(Coding::Gzip, &zeros);
    let many = member.repeat(10_000);
    for (codings, bomb) in [
        (vec![Coding::Gzip], many.clone()),
        (vec![Coding::Gzip, Coding::Gzip], encode(Coding::Gzip, &many)),
        (vec![Coding::Brotli], encode(Coding::Brotli, &vec![0; 64 << 20])),
        (vec![Coding::Zstd], encode(Coding::Zstd, &vec![0; 64 << 20])),
    ] {
        let mut decoding = Decoding::new(codings.clone(), bomb.into());
        let mut steps = 0;
        let total = loop {
            match decoding.step().expect("it is valid") {
                Step::More { total, .. } if total > BOUND_BYTES => break total,
                Step::More { .. } => steps += 1,
                Step::Done(_) => panic!("{codings:?}: the bomb is larger"),
            }
        };
        assert!(total <= BOUND_BYTES + STEP_BYTES && steps >= BOUND_BYTES / STEP_BYTES, "{codings:?}: {total}");
    }
}

#[test]
fn raw_deflate_is_accepted() {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(b"{\"model\":\"m\"}").expect("memory takes everything");
    let encoded = encoder.finish().expect("memory takes everything");
    assert_eq!(decode(&[Coding::Deflate], encoded), Ok(Bytes::from_static(b"{\"model\":\"m\"}")));
}

#[test]
fn the_optional_fields_of_a_gzip_header_are_skipped_and_its_checksum_is_verified() {
    let mut header = b"\x1f\x8b\x08\x1e\0\0\0\0\0\xff\x03\0abcname\0comment\0".to_vec();
    let mut checksum = flate2::Crc::new();
    checksum.update(&header);
    header.extend(&checksum.sum().to_le_bytes()[..2]);
    let body = encode(Coding::Gzip, b"text")[10..].to_vec();
    assert_eq!(decode(&[Coding::Gzip], [header.clone(), body.clone()].concat()), Ok(Bytes::from_static(b"text")));
    header[10 + 2] = b'x';
    assert_eq!(decode(&[Coding::Gzip], [header, body.clone()].concat()), Err(Undecodable));
    for reserved in [0x20, 0x40, 0x80] {
        let header = [b"\x1f\x8b\x08", &[reserved][..], &[0; 6]].concat();
        assert_eq!(decode(&[Coding::Gzip], [header, body.clone()].concat()), Err(Undecodable), "{reserved:x}");
    }
}

#[test]
fn a_zstd_frame_with_a_window_over_8_mib_is_refused() {
    let plain = vec![7; 32 << 20];
    let mut context = zstd_safe::CCtx::create();
    context.set_parameter(zstd_safe::CParameter::WindowLog(24)).expect("a large window is possible");
    context.set_parameter(zstd_safe::CParameter::ContentSizeFlag(false)).expect("the size may be left out");
    let mut encoded = Vec::with_capacity(zstd_safe::compress_bound(plain.len()));
    context.compress2(&mut encoded, &plain[..]).expect("there is room");
    assert_eq!(decode(&[Coding::Zstd], encoded), Err(Undecodable));
}

#[test]
fn codings_are_read_in_any_case_from_lists_and_several_lines() {
    let read = |values: &[&'static str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CONTENT_ENCODING, HeaderValue::from_static(value));
        }
        content_codings(&headers)
    };
    assert_eq!(read(&[]), Some(vec![]));
    assert_eq!(read(&["identity"]), Some(vec![]));
    assert_eq!(read(&["X-GZip"]), Some(vec![Coding::Gzip]));
    assert_eq!(read(&["gzip , BR,", "zstd"]), Some(vec![Coding::Gzip, Coding::Brotli, Coding::Zstd]));
    assert_eq!(read(&["deflate, identity"]), Some(vec![Coding::Deflate]));
    assert_eq!(read(&["gzip, compress"]), None);
    assert_eq!(read(&["gzip, gzip, gzip, gzip"]), None);
}
