//! One coding of a body: the state of its decoder.

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use flate2::Decompress;
use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::gzip::Gzip;
use super::inflate::{Advance, first_step, inflate};
use super::{Coding, Undecodable};

/// Binary logarithm of the largest window of a Zstandard frame: 8 MiB, as RFC 9659 requires.
const MAX_ZSTD_WINDOW_LOG: u32 = 23;

type Brotli = BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>;

/// State of a decoder.
pub(super) enum Stage {
    Gzip(Box<Gzip>),
    Deflate { decoder: Box<Decompress>, is_complete: bool },
    Brotli { decoder: Box<Brotli>, is_complete: bool },
    Zstd { decoder: DCtx<'static> },
}

impl Stage {
    /// Creates a decoder for a body that starts with `input`.
    pub(super) fn new(coding: Coding, input: &[u8]) -> Result<Self, Undecodable> {
        Ok(match coding {
            Coding::Gzip => Self::Gzip(Box::default()),
            Coding::Deflate => {
                Self::Deflate { decoder: Box::new(Decompress::new(has_zlib_header(input))), is_complete: false }
            }
            Coding::Brotli => {
                let [bytes, words, codes] = [StandardAlloc::default(); 3];
                // The strict decoder refuses windows over 16 MiB, which are no part of `br`.
                Self::Brotli { decoder: Box::new(Brotli::new_strict(bytes, words, codes)), is_complete: false }
            }
            Coding::Zstd => {
                let mut decoder = DCtx::try_create().ok_or(Undecodable)?;
                decoder.set_parameter(DParameter::WindowLogMax(MAX_ZSTD_WINDOW_LOG)).map_err(|_| Undecodable)?;
                Self::Zstd { decoder }
            }
        })
    }

    /// Reads from the start of `input` and writes to the start of `output`. If there is no progress, the input is
    /// either complete or damaged.
    pub(super) fn advance(&mut self, input: &[u8], output: &mut [u8]) -> Result<Advance, Undecodable> {
        match self {
            Self::Gzip(decoder) => decoder.advance(input, output),
            // No progress after the end lets the caller detect bytes behind the body.
            Self::Deflate { is_complete: true, .. } | Self::Brotli { is_complete: true, .. } => {
                Ok(Advance { read: 0, written: 0, is_complete: true })
            }
            Self::Deflate { decoder, is_complete } => {
                let advance = inflate(decoder, input, output)?;
                *is_complete = advance.is_complete;
                Ok(advance)
            }
            Self::Brotli { decoder, is_complete } => {
                let advance = decode_brotli(decoder, first_step(input), output)?;
                *is_complete = advance.is_complete;
                Ok(advance)
            }
            Self::Zstd { decoder } => decode_zstd(decoder, first_step(input), output),
        }
    }
}

fn decode_brotli(decoder: &mut Brotli, input: &[u8], output: &mut [u8]) -> Result<Advance, Undecodable> {
    let (mut unread, mut read) = (input.len(), 0);
    let (mut free, mut written, mut total) = (output.len(), 0, 0);
    let result =
        BrotliDecompressStream(&mut unread, &mut read, input, &mut free, &mut written, output, &mut total, decoder);
    match result {
        BrotliResult::ResultFailure => Err(Undecodable),
        BrotliResult::ResultSuccess => Ok(Advance { read, written, is_complete: true }),
        BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {
            Ok(Advance { read, written, is_complete: false })
        }
    }
}

fn decode_zstd(decoder: &mut DCtx<'_>, input: &[u8], output: &mut [u8]) -> Result<Advance, Undecodable> {
    let (mut source, mut target) = (InBuffer::around(input), OutBuffer::around(output));
    let wanted = decoder.decompress_stream(&mut target, &mut source).map_err(|_| Undecodable)?;
    // Zero means that a frame is complete and flushed. Further frames may follow.
    Ok(Advance { read: source.pos(), written: target.pos(), is_complete: wanted == 0 })
}

/// Returns true if a deflate body has the header of RFC 1950.
fn has_zlib_header(input: &[u8]) -> bool {
    // RFC 1950, section 2.2: method 8, a window of at most 32 KiB, and a check value.
    let [method, flags, ..] = *input else { return true };
    method & 0x0f == 8 && method >> 4 <= 7 && u16::from_be_bytes([method, flags]).is_multiple_of(31)
}
