//! File format for moving a cache from one instance to another. It holds keys and records only.
//!
//! ```text
//! "vecho cache 2\n"                                          14 bytes
//! a frame for each record:
//!     mark F5 'v' 'R' FA  |  length, u32 LE  |  key, 32  |  record, `length` bytes  |  checksum, 32
//! the end:
//!     mark F5 'v' 'E' FA  |  records, u64 LE  |  sum, 32  |  checksum, 32
//! ```
//!
//! A frame's checksum covers key, length and record. The sum covers all checksums in order, and the checksum of the end
//! covers the number of records and the sum. So a changed record is detected and skipped, a missing or duplicate record
//! is detected at the end, and a file without its end was truncated. After a damaged place the reader looks for the
//! next mark; records that are intact are read.

mod read;
mod write;

use crate::key::{Key, KeyBuilder, Tag};

pub use read::{Ending, NotPortable, Piece, Reader};
pub use write::{TooLong, Writer};

/// The first line.
const HEAD: &[u8] = b"vecho cache 2\n";

/// Common prefix of the first line in all versions.
const ANY_HEAD: &[u8] = b"vecho cache ";

/// Starts a frame. It is not UTF-8, and unlikely in a vector.
const RECORD_MARK: [u8; MARK_BYTES] = [0xf5, b'v', b'R', 0xfa];

/// Starts the end.
const END_MARK: [u8; MARK_BYTES] = [0xf5, b'v', b'E', 0xfa];

const MARK_BYTES: usize = 4;
const KEY_BYTES: usize = 32;
const CHECKSUM_BYTES: usize = 32;

/// Mark, length and key.
const FRAME_HEAD_BYTES: usize = MARK_BYTES + 4 + KEY_BYTES;

/// Mark, records, sum and checksum.
const END_BYTES: usize = MARK_BYTES + 8 + 2 * CHECKSUM_BYTES;

/// Largest record in a file. It bounds the reader's memory; the vectors of all known models are far smaller.
pub const MAX_RECORD_BYTES: usize = 1 << 20;

/// Returns the sum over no checksums.
fn empty_sum() -> Key {
    KeyBuilder::new(None).finish()
}

/// Returns the checksum of a frame. The hash of the record includes its length.
fn checksum(key: &Key, record: &[u8]) -> Key {
    key.extend(Tag::Body, record)
}

/// Returns the sum with one more frame.
fn add(sum: &Key, checksum: &Key) -> Key {
    sum.extend(Tag::Control, checksum.as_bytes())
}

/// Returns the checksum of the end.
fn end_checksum(records: u64, sum: &Key) -> Key {
    sum.extend(Tag::Control, &records.to_le_bytes())
}

#[cfg(test)]
mod tests;
