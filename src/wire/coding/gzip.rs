//! The gzip format (RFC 1952): a header, a deflate stream and a checksum, once or several times.

use flate2::{Crc, Decompress};

use super::Undecodable;
use super::inflate::{Advance, inflate};

/// Bytes of a header without its optional fields.
const HEADER_BYTES: usize = 10;
/// Bytes of the checksum and the length that end a member.
const TRAILER_BYTES: usize = 8;

const HEADER_CHECKSUM: u8 = 0x02;
const EXTRA: u8 = 0x04;
const NAME: u8 = 0x08;
const COMMENT: u8 = 0x10;
const RESERVED: u8 = 0xe0;

/// Decoder of a sequence of members.
pub(super) struct Gzip {
    part: MemberPart,
    decoder: Decompress,
    checksum: Crc,
}

/// Next part of a member.
enum MemberPart {
    Header,
    Body,
    Trailer,
}

impl Default for Gzip {
    fn default() -> Self {
        Self { part: MemberPart::Header, decoder: Decompress::new(false), checksum: Crc::new() }
    }
}

impl Gzip {
    pub(super) fn advance(&mut self, input: &[u8], output: &mut [u8]) -> Result<Advance, Undecodable> {
        match self.part {
            MemberPart::Header => {
                // The whole body is in memory, so an incomplete header is a truncated one.
                let read = header_bytes(input).ok_or(Undecodable)?;
                self.decoder.reset(false);
                self.checksum.reset();
                self.part = MemberPart::Body;
                Ok(Advance { read, written: 0, is_complete: false })
            }
            MemberPart::Body => {
                let advance = inflate(&mut self.decoder, input, output)?;
                // The checksum covers the decoded bytes of one member.
                self.checksum.update(&output[..advance.written]);
                if advance.is_complete {
                    self.part = MemberPart::Trailer;
                }
                Ok(Advance { is_complete: false, ..advance })
            }
            MemberPart::Trailer => {
                let trailer = input.get(..TRAILER_BYTES).ok_or(Undecodable)?;
                if trailer != self.expected_trailer() {
                    return Err(Undecodable);
                }
                // Another member may follow. The body is complete if no input is left.
                self.part = MemberPart::Header;
                Ok(Advance { read: TRAILER_BYTES, written: 0, is_complete: true })
            }
        }
    }

    fn expected_trailer(&self) -> [u8; TRAILER_BYTES] {
        let (checksum, length) = (self.checksum.sum(), self.checksum.amount());
        // RFC 1952, section 2.3.1: the checksum, then the length modulo 2^32, in little-endian order.
        let fields = u64::from(length) << 32 | u64::from(checksum);
        fields.to_le_bytes()
    }
}

/// Returns the length of the header at the start of `input`, if it is complete and valid.
fn header_bytes(input: &[u8]) -> Option<usize> {
    // The magic number, and deflate as the only method that RFC 1952 defines.
    let [0x1f, 0x8b, 8, flags, ..] = *input.get(..HEADER_BYTES)? else { return None };
    // RFC 1952, section 2.3.1.2: a decoder must reject reserved bits, which may announce unknown fields.
    if flags & RESERVED != 0 {
        return None;
    }
    let mut length = HEADER_BYTES;
    if flags & EXTRA != 0 {
        let [low, high] = *input.get(length..length + 2)? else { return None };
        length += 2 + usize::from(u16::from_le_bytes([low, high]));
    }
    // Both fields are texts that end with a zero byte.
    for field in [NAME, COMMENT] {
        if flags & field != 0 {
            length += memchr::memchr(0, input.get(length..)?)? + 1;
        }
    }
    if flags & HEADER_CHECKSUM != 0 {
        let mut checksum = Crc::new();
        checksum.update(input.get(..length)?);
        // The header's checksum is the lower half of a CRC-32.
        let [low, high, ..] = checksum.sum().to_le_bytes();
        (*input.get(length..length + 2)? == [low, high]).then_some(())?;
        length += 2;
    }
    (length <= input.len()).then_some(length)
}
