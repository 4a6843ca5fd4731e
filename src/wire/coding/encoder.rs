//! Encoding of an answer with a content coding.

use std::io::Write as _;

use brotli::CompressorWriter;
use brotli::enc::BrotliEncoderParams;
use flate2::Compression;
use flate2::write::GzEncoder;
use zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer};

use crate::observe::metrics::AnswerCoding;

/// The codings of answers, the preferred one first.
pub const PREFERRED_CODINGS: [AnswerCoding; 3] = [AnswerCoding::Zstd, AnswerCoding::Brotli, AnswerCoding::Gzip];

/// Levels of the encoders. The digits of vectors hardly repeat, so higher levels search in vain.
const GZIP_LEVEL: u32 = 1;
const BROTLI_QUALITY: i32 = 2;
const ZSTD_LEVEL: i32 = 1;

/// Binary logarithm of the window of Brotli: 64 KiB.
const BROTLI_WINDOW_LOG: i32 = 16;

/// Size of the buffer between Brotli and the encoded body.
const BROTLI_BUFFER_BYTES: usize = 4 * 1024;

/// Binary logarithm of the window of a Zstandard frame: 32 KiB.
const ZSTD_WINDOW_LOG: u32 = 15;

/// Encoder of one body.
pub struct Encoder(State);

enum State {
    Gzip(Box<GzEncoder<Vec<u8>>>),
    /// `None` after the last piece.
    Brotli(Option<Box<CompressorWriter<Vec<u8>>>>),
    Zstd(CCtx<'static>),
}

impl Encoder {
    /// Returns an upper bound of the memory that an encoder holds.
    pub const fn memory_bytes(coding: AnswerCoding) -> usize {
        match coding {
            // The window, and tables of the same size.
            AnswerCoding::Gzip | AnswerCoding::Zstd => 448 * 1024,
            // Another table has 256 KiB, and blocks that wait for their codes take as much.
            AnswerCoding::Brotli => 1024 * 1024,
        }
    }

    /// Creates an encoder. `plain_bytes` is the length of the body, if it is known.
    pub fn new(coding: AnswerCoding, plain_bytes: Option<usize>) -> Self {
        match coding {
            AnswerCoding::Gzip => Self(State::Gzip(Box::new(GzEncoder::new(Vec::new(), Compression::new(GZIP_LEVEL))))),
            AnswerCoding::Brotli => Self(State::Brotli(Some(Box::new(brotli(plain_bytes))))),
            AnswerCoding::Zstd => Self(State::Zstd(zstd(plain_bytes))),
        }
    }

    /// Encodes the next piece. The result may be empty unless it is the last piece.
    pub fn encode(&mut self, piece: &[u8], is_last: bool) -> Vec<u8> {
        match &mut self.0 {
            State::Gzip(encoder) => encode_gzip(encoder, piece, is_last),
            State::Brotli(encoder) => encode_brotli(encoder, piece, is_last),
            State::Zstd(context) => encode_zstd(context, piece, is_last),
        }
    }
}

fn encode_gzip(encoder: &mut GzEncoder<Vec<u8>>, piece: &[u8], is_last: bool) -> Vec<u8> {
    encoder.get_mut().reserve(piece.len());
    encoder.write_all(piece).expect("memory must take every byte");
    if is_last {
        encoder.try_finish().expect("memory must take every byte");
    }
    std::mem::take(encoder.get_mut())
}

fn brotli(plain_bytes: Option<usize>) -> CompressorWriter<Vec<u8>> {
    // A known length makes the tables of a small body small.
    let size_hint = plain_bytes.unwrap_or(0);
    let (quality, lgwin) = (BROTLI_QUALITY, BROTLI_WINDOW_LOG);
    let params = BrotliEncoderParams { quality, lgwin, size_hint, ..BrotliEncoderParams::default() };
    CompressorWriter::with_params(Vec::new(), BROTLI_BUFFER_BYTES, &params)
}

fn encode_brotli(encoder: &mut Option<Box<CompressorWriter<Vec<u8>>>>, piece: &[u8], is_last: bool) -> Vec<u8> {
    let writer = encoder.as_mut().expect("no piece may follow the last one");
    writer.get_mut().reserve(piece.len());
    writer.write_all(piece).expect("memory must take every byte");
    // The end of the body is written when the writer ends.
    if let Some(ended) = encoder.take_if(|_| is_last) {
        return ended.into_inner();
    }
    encoder.as_mut().map(|writer| std::mem::take(writer.get_mut())).unwrap_or_default()
}

fn zstd(plain_bytes: Option<usize>) -> CCtx<'static> {
    let mut context = CCtx::create();
    let parameters = [CParameter::CompressionLevel(ZSTD_LEVEL), CParameter::WindowLog(ZSTD_WINDOW_LOG)];
    for parameter in parameters {
        context.set_parameter(parameter).expect("the parameters must be legal");
    }
    // A known length makes the tables of a small body small.
    context.set_pledged_src_size(plain_bytes.map(|bytes| bytes as u64)).expect("a new context must take a length");
    context
}

fn encode_zstd(context: &mut CCtx<'_>, piece: &[u8], is_last: bool) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(zstd_safe::compress_bound(piece.len()));
    let mut source = InBuffer::around(piece);
    loop {
        let at = encoded.len();
        let mut target = OutBuffer::around_pos(&mut encoded, at);
        let is_read = source.pos() == piece.len();
        let rest = if !is_read {
            context.compress_stream(&mut target, &mut source)
        } else if is_last {
            context.end_stream(&mut target)
        } else {
            return encoded;
        };
        let rest = rest.expect("memory must take every byte");
        if is_read && rest == 0 {
            return encoded;
        }
        // The encoder may hold back up to a block, which is larger than a piece.
        encoded.reserve(if is_read { rest } else { CCtx::out_size() });
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::wire::coding::{Decoding, Step};

    fn decoded(coding: AnswerCoding, encoded: Vec<u8>) -> Bytes {
        let mut decoding = Decoding::new(vec![coding.into()], encoded.into());
        loop {
            if let Step::Done(plain) = decoding.step().expect("the body is complete") {
                return plain;
            }
        }
    }

    fn digits(count: usize) -> Vec<u8> {
        (0..count).map(|place| b'0' + u8::try_from(place * place / 7 % 10).expect("a digit")).collect()
    }

    #[test]
    fn pieces_of_any_size_decode_to_the_body() {
        for coding in PREFERRED_CODINGS {
            for (body_bytes, piece_bytes) in
                [(1, 1), (5_000, 7), (20_000, 20_000), (300_000, 16_384), (300_000, 300_000)]
            {
                for is_known in [true, false] {
                    let body = digits(body_bytes);
                    let mut encoder = Encoder::new(coding, is_known.then_some(body_bytes));
                    let last = body_bytes.div_ceil(piece_bytes) - 1;
                    let pieces = body.chunks(piece_bytes).enumerate();
                    let encoded: Vec<u8> = pieces.flat_map(|(at, piece)| encoder.encode(piece, at == last)).collect();
                    assert!(decoded(coding, encoded) == body, "{coding:?}: {body_bytes} bytes by {piece_bytes}");
                }
            }
        }
    }

    #[test]
    fn an_empty_body_is_encoded() {
        for coding in PREFERRED_CODINGS {
            assert_eq!(decoded(coding, Encoder::new(coding, Some(0)).encode(b"", true)), Bytes::new(), "{coding:?}");
        }
    }

    #[test]
    fn the_encoder_of_zstd_holds_no_more_than_its_bound() {
        let mut encoder = Encoder::new(AnswerCoding::Zstd, None);
        for piece in digits(2_000_000).chunks(16_384) {
            encoder.encode(piece, false);
        }
        let State::Zstd(context) = encoder.0 else { panic!("it is the encoder of zstd") };
        assert!(context.sizeof() <= Encoder::memory_bytes(AnswerCoding::Zstd), "{} bytes", context.sizeof());
    }
}
