//! The file in which a cache travels from one instance to another: keys and records, and nothing else.
//!
//! ```text
//! "vecho cache 2\n"                                          14 bytes
//! a frame for each record:
//!     mark F5 'v' 'R' FA  |  length, u32 LE  |  key, 32  |  record, `length` bytes  |  checksum, 32
//! the end:
//!     mark F5 'v' 'E' FA  |  records, u64 LE  |  sum, 32  |  checksum, 32
//! ```
//!
//! A frame's checksum is over key, length and record. The sum is over all checksums in their order, and the end's
//! checksum over records and sum. So a record that changed is noticed and skipped, one that is missing or doubled is
//! noticed at the end, and a file without its end was cut. Behind a damaged place the next mark is looked for; what is
//! whole is read.

mod read;
mod write;

use crate::key::{Key, KeyBuilder, Tag};

pub use read::{Ending, NotPortable, Piece, Reader};
pub use write::{TooLong, Writer};

/// The first line.
const HEAD: &[u8] = b"vecho cache 2\n";

/// What the first lines of all versions begin with.
const ANY_HEAD: &[u8] = b"vecho cache ";

/// Begins a frame. Neither UTF-8 nor likely in a vector.
const RECORD_MARK: [u8; MARK_BYTES] = [0xf5, b'v', b'R', 0xfa];

/// Begins the end.
const END_MARK: [u8; MARK_BYTES] = [0xf5, b'v', b'E', 0xfa];

const MARK_BYTES: usize = 4;
const KEY_BYTES: usize = 32;
const CHECKSUM_BYTES: usize = 32;

/// Mark, length and key.
const FRAME_HEAD_BYTES: usize = MARK_BYTES + 4 + KEY_BYTES;

/// Mark, records, sum and checksum.
const END_BYTES: usize = MARK_BYTES + 8 + 2 * CHECKSUM_BYTES;

/// Largest record in a file. It bounds what a reader holds; the vectors of no model come near it.
pub const MAX_RECORD_BYTES: usize = 1 << 20;

/// The sum over no checksums.
fn empty_sum() -> Key {
    KeyBuilder::new(None).finish()
}

/// The checksum of a frame; the length goes in with the record.
fn checksum(key: &Key, record: &[u8]) -> Key {
    key.extend(Tag::Body, record)
}

/// The sum with one more frame.
fn add(sum: &Key, checksum: &Key) -> Key {
    sum.extend(Tag::Control, checksum.as_bytes())
}

/// The checksum of the end.
fn end_checksum(records: u64, sum: &Key) -> Key {
    sum.extend(Tag::Control, &records.to_le_bytes())
}

#[cfg(test)]
mod tests;
