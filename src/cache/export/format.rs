//! Constants and checksums of the format.

use crate::key::{Key, KeyBuilder, Tag};

/// The first line.
pub(super) const HEAD: &[u8] = b"vecho cache 2\n";

/// Common prefix of the first line in all versions.
pub(super) const ANY_HEAD: &[u8] = b"vecho cache ";

/// Starts a frame. It is not UTF-8, and unlikely in a vector.
pub(super) const RECORD_MARK: [u8; MARK_BYTES] = [0xf5, b'v', b'R', 0xfa];

/// Starts the end.
pub(super) const END_MARK: [u8; MARK_BYTES] = [0xf5, b'v', b'E', 0xfa];

/// Size of a mark.
pub(super) const MARK_BYTES: usize = 4;
/// Size of a key.
pub(super) const KEY_BYTES: usize = 32;
/// Size of a checksum, and of the sum.
pub(super) const CHECKSUM_BYTES: usize = 32;

/// Mark, length and key.
pub(super) const FRAME_HEAD_BYTES: usize = MARK_BYTES + 4 + KEY_BYTES;

/// Mark, records, sum and checksum.
pub(super) const END_BYTES: usize = MARK_BYTES + 8 + 2 * CHECKSUM_BYTES;

/// Largest record in a file. It bounds the reader's memory; the vectors of all known models are far smaller.
pub const MAX_RECORD_BYTES: usize = 1 << 20;

/// Returns the sum over no checksums.
pub(super) fn empty_sum() -> Key {
    KeyBuilder::new(None).finish()
}

/// Returns the checksum of a frame. The hash of the record includes its length.
pub(super) fn checksum(key: &Key, record: &[u8]) -> Key {
    key.extend(Tag::Body, record)
}

/// Returns the sum with one more frame.
pub(super) fn add(sum: &Key, checksum: &Key) -> Key {
    sum.extend(Tag::Control, checksum.as_bytes())
}

/// Returns the checksum of the end.
pub(super) fn end_checksum(records: u64, sum: &Key) -> Key {
    sum.extend(Tag::Control, &records.to_le_bytes())
}
