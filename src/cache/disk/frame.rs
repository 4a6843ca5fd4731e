//! One entry in a segment: a header, then the value.
//!
//! ```text
//! +--------+--------+----------+-----+----------+-------------------+
//! | "vent" | length | until_ms | key | checksum | value             |
//! |   4    |   4    |    8     | 32  |    16    | length            |
//! +--------+--------+----------+-----+----------+-------------------+
//! ```
//!
//! Numbers are little-endian. The checksum covers only the header, because the value has a checksum of its own.

use super::checksum::{CHECKSUM_BYTES, checksum, cut};
use crate::key::Key;

/// Size of the header before the value.
pub(super) const HEAD_BYTES: usize = 64;
const SEALED_BYTES: usize = HEAD_BYTES - CHECKSUM_BYTES;
const MAGIC: [u8; 4] = *b"vent";

/// Header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) key: Key,
    pub(super) until_ms: u64,
    /// Length of the value in bytes.
    pub(super) length: u32,
}

impl Head {
    pub(super) fn to_bytes(self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.until_ms.to_le_bytes());
        bytes[16..SEALED_BYTES].copy_from_slice(self.key.as_bytes());
        let sum = checksum(&[&bytes[..SEALED_BYTES]]);
        bytes[SEALED_BYTES..].copy_from_slice(&sum);
        bytes
    }

    /// Decodes the header at the front of `bytes`, if its checksum is right.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (sealed, mut rest) = bytes.split_at_checked(SEALED_BYTES)?;
        let mut front = sealed;
        let magic: [u8; 4] = cut(&mut front)?;
        let length = u32::from_le_bytes(cut(&mut front)?);
        let until_ms = u64::from_le_bytes(cut(&mut front)?);
        let key = Key::from_bytes(cut(&mut front)?);
        let is_whole = magic == MAGIC && checksum(&[sealed]) == cut(&mut rest)?;
        is_whole.then_some(Self { key, until_ms, length })
    }

    /// Returns the header of the frame once its value is erased. It is expired at any time, so it is never served.
    pub(super) const fn erased(self) -> Self {
        Self { until_ms: 0, ..self }
    }

    /// Returns true if the value is erased. No other frame expires in 1970.
    pub(super) const fn is_erased(&self) -> bool {
        self.until_ms == 0
    }

    /// Returns the size of the whole frame in bytes.
    pub(super) const fn frame_bytes(&self) -> u64 {
        HEAD_BYTES as u64 + self.length as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{KeyBuilder, Tag};

    #[test]
    fn a_header_round_trips_and_every_flipped_bit_is_detected() {
        let key = KeyBuilder::new(None).part(Tag::Text, b"x").finish();
        let head = Head { key, until_ms: 1 << 40, length: 3200 };
        let bytes = head.to_bytes();
        assert_eq!(Head::read(&bytes), Some(head));
        for bit in 0..HEAD_BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Head::read(&damaged), None, "bit {bit}");
        }
        assert_eq!(Head::read(&bytes[..HEAD_BYTES - 1]), None);
    }
}
