//! Index of a segment's frames at the end of its file. With it a store opens without reading any values.
//!
//! ```text
//! +--------------------------------------+----------+-------+----------+----------+
//! | tag, until_ms, offset, length: 24    | "vechoend" | count | data end | checksum |
//! | for each frame                       |     8      |   8   |    8     |    16    |
//! +--------------------------------------+----------+-------+----------+----------+
//! ```
//!
//! Numbers are little-endian. The checksum covers all bytes before it and the segment's number.

use super::checksum::{CHECKSUM_BYTES, checksum, cut};
use crate::key::Key;

/// Bytes that one frame adds to a footer.
pub(super) const ENTRY_BYTES: u64 = 24;
/// Size of the fixed-length end of a footer.
pub(super) const END_BYTES: u64 = 40;
const MAGIC: [u8; 8] = *b"vechoend";

/// Short form of a key, used where the full key is checked later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct KeyTag(pub(super) u64);

impl From<&Key> for KeyTag {
    fn from(key: &Key) -> Self {
        let bytes = key.as_bytes().last_chunk().expect("a key must have 32 bytes");
        Self(u64::from_le_bytes(*bytes))
    }
}

/// Location of one frame in its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameEntry {
    pub(super) tag: KeyTag,
    pub(super) until_ms: u64,
    pub(super) offset: u32,
    /// Length of the value in bytes.
    pub(super) length: u32,
}

/// Returns the size of a footer for this many frames.
pub(super) const fn footer_bytes(frames: usize) -> u64 {
    frames as u64 * ENTRY_BYTES + END_BYTES
}

/// Encodes the footer of segment `number`. Its frames end at `data_end`.
pub(super) fn to_bytes(frames: &[FrameEntry], number: u32, data_end: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for frame in frames {
        bytes.extend_from_slice(&frame.tag.0.to_le_bytes());
        bytes.extend_from_slice(&frame.until_ms.to_le_bytes());
        bytes.extend_from_slice(&frame.offset.to_le_bytes());
        bytes.extend_from_slice(&frame.length.to_le_bytes());
    }
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&(frames.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&data_end.to_le_bytes());
    // The number is hashed too, so the footer is invalid in a file that was renamed to another number.
    let sum = checksum(&[&bytes, &number.to_le_bytes()]);
    bytes.extend_from_slice(&sum);
    bytes
}

/// Returns the end of the frames if `end`, the last [`END_BYTES`] of a file of `file_bytes`, looks like the end of a
/// footer.
pub(super) fn data_end(mut end: &[u8], file_bytes: u64) -> Option<u64> {
    let magic: [u8; 8] = cut(&mut end)?;
    let count = u64::from_le_bytes(cut(&mut end)?);
    let data_end = u64::from_le_bytes(cut(&mut end)?);
    // The checksum is not verified yet, so the numbers may be anything and their sum may overflow.
    let expected = count.checked_mul(ENTRY_BYTES)?.checked_add(END_BYTES)?.checked_add(data_end)?;
    (magic == MAGIC && expected == file_bytes).then_some(data_end)
}

/// Decodes the frames of a footer; `None` if its checksum is wrong.
pub(super) fn read(bytes: &[u8], number: u32) -> Option<Vec<FrameEntry>> {
    let (sealed, sum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_BYTES)?)?;
    if checksum(&[sealed, &number.to_le_bytes()]) != sum {
        return None;
    }
    let named = bytes.len() as u64 - END_BYTES;
    bytes[..usize::try_from(named).ok()?].chunks_exact(24).map(read_entry).collect()
}

fn read_entry(mut bytes: &[u8]) -> Option<FrameEntry> {
    Some(FrameEntry {
        tag: KeyTag(u64::from_le_bytes(cut(&mut bytes)?)),
        until_ms: u64::from_le_bytes(cut(&mut bytes)?),
        offset: u32::from_le_bytes(cut(&mut bytes)?),
        length: u32::from_le_bytes(cut(&mut bytes)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_footer_is_valid_only_for_its_own_segment() {
        let frame = |n: u32| FrameEntry { tag: KeyTag(n.into()), until_ms: 7, offset: n * 100, length: 36 };
        let frames: Vec<FrameEntry> = (0..5).map(frame).collect();
        let bytes = to_bytes(&frames, 3, 500);
        assert_eq!(bytes.len() as u64, footer_bytes(5));
        let end = &bytes[bytes.len() - 40..];
        assert_eq!(data_end(end, 500 + bytes.len() as u64), Some(500));
        assert_eq!(data_end(end, 501 + bytes.len() as u64), None);
        assert_eq!(read(&bytes, 3), Some(frames));
        assert_eq!(read(&bytes, 4), None);
        assert_eq!(read(&bytes[..10], 3), None);
    }

    #[test]
    fn every_flipped_bit_is_detected() {
        let frame = FrameEntry { tag: KeyTag(1), until_ms: 7, offset: 16, length: 36 };
        let bytes = to_bytes(&[frame], 3, 500);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&damaged, 3), None, "bit {bit}");
        }
    }
}
