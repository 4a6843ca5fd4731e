//! Bodies in content codings.

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::{GzEncoder, ZlibEncoder};

/// Applies the codings of a `content-encoding` header in their order.
pub(crate) fn encode(codings: &str, plain: &[u8]) -> Vec<u8> {
    codings.split(',').map(str::trim).fold(plain.to_vec(), |body, coding| encode_once(coding, &body))
}

/// Decodes a body in one coding. Panics if bytes are missing, damaged or left.
pub(crate) fn decode(coding: &str, encoded: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    match coding {
        "gzip" => {
            let mut decoder = GzDecoder::new(encoded);
            decoder.read_to_end(&mut plain).expect("the body is gzip");
            assert!(decoder.into_inner().is_empty(), "bytes follow the body");
        }
        "br" => brotli::BrotliDecompress(&mut &*encoded, &mut plain).expect("the body is br"),
        "zstd" => {
            // Digits have at least three bits, so the body has at most three times the bytes.
            plain.reserve(encoded.len() * 4 + 1024);
            zstd_safe::decompress(&mut plain, encoded).expect("the body is zstd");
        }
        other => panic!("no decoder for {other}"),
    }
    plain
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
