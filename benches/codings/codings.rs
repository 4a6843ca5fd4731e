//! The codings that are compared.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use vecho::wire::{AnswerCoding, Coding, Decoding, Encoder, Step};

/// Size of the parts in which a body is encoded.
const PART_BYTES: usize = 16 * 1024;

/// Name, coding, and a function that encodes a body.
type Candidate = (&'static str, Coding, fn(&[u8]) -> Vec<u8>);

/// vecho's own choice first.
pub(crate) const ALL: &[Candidate] = &[
    ("gzip", Coding::Gzip, |body| own(AnswerCoding::Gzip, body)),
    ("zstd", Coding::Zstd, |body| own(AnswerCoding::Zstd, body)),
    ("br", Coding::Brotli, |body| own(AnswerCoding::Brotli, body)),
    ("gzip, level 3", Coding::Gzip, |body| gzip(body, 3)),
    ("zstd, level 3", Coding::Zstd, |body| zstd(body, 3)),
    ("br, level 1", Coding::Brotli, |body| brotli(body, 1)),
    ("br, level 4", Coding::Brotli, |body| brotli(body, 4)),
];

fn own(coding: AnswerCoding, body: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new(coding, Some(body.len()));
    let last = body.len().div_ceil(PART_BYTES) - 1;
    body.chunks(PART_BYTES).enumerate().flat_map(|(place, part)| encoder.encode(part, place == last)).collect()
}

fn gzip(body: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len()), Compression::new(level));
    encoder.write_all(body).expect("memory takes everything");
    encoder.finish().expect("memory takes everything")
}

fn zstd(body: &[u8], level: i32) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(zstd_safe::compress_bound(body.len()));
    zstd_safe::compress(&mut encoded, body, level).expect("there is room");
    encoded
}

fn brotli(body: &[u8], quality: i32) -> Vec<u8> {
    let params = brotli::enc::BrotliEncoderParams { quality, lgwin: 18, ..Default::default() };
    let mut encoded = Vec::with_capacity(body.len());
    brotli::BrotliCompress(&mut &*body, &mut encoded, &params).expect("memory takes everything");
    encoded
}

/// Decodes a body as vecho decodes answers of the upstream.
pub(crate) fn decode(coding: Coding, encoded: &[u8]) -> Bytes {
    let mut decoding = Decoding::new(vec![coding], Bytes::copy_from_slice(encoded));
    loop {
        if let Step::Done(plain) = decoding.step().expect("the body is complete") {
            return plain;
        }
    }
}
