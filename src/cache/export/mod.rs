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

mod format;
mod read;
mod write;

#[cfg(test)]
mod tests;

pub use format::MAX_RECORD_BYTES;
pub use read::{Ending, ExportItem, ExportReader, NotPortable};
pub use write::{ExportWriter, RecordTooLong};
