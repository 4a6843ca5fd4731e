//! Bodies in content codings.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

/// Applies the codings of a `content-encoding` header in their order.
pub(crate) fn encode(codings: &str, plain: &[u8]) -> Vec<u8> {
    codings.split(',').map(str::trim).fold(plain.to_vec(), |body, coding| encode_once(coding, &body))
}

fn encode_once(coding: &str, plain: &[u8]) -> Vec<u8> {
    match coding.to_ascii_lowercase().as_str() {
        "gzip" | "x-gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(plain).expect("memory takes everything");
            encoder.finish().expect("memory takes everything")
        }
        "deflate" => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(plain).expect("memory takes everything");
            encoder.finish().expect("memory takes everything")
        }
        "br" => {
            let params = brotli::enc::BrotliEncoderParams { quality: 3, ..Default::default() };
            let mut encoded = Vec::new();
            brotli::BrotliCompress(&mut &*plain, &mut encoded, &params).expect("memory takes everything");
            encoded
        }
        "zstd" => {
            let mut encoded = Vec::with_capacity(zstd_safe::compress_bound(plain.len()));
            zstd_safe::compress(&mut encoded, plain, 1).expect("there is room");
            encoded
        }
        "identity" => plain.to_vec(),
        other => panic!("no encoder for {other}"),
    }
}
