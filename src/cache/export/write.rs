//! Writer: bytes are appended to a buffer, which the caller drains.

use super::format::{END_MARK, HEAD, MAX_RECORD_BYTES, RECORD_MARK, add, checksum, empty_sum, end_checksum};
use crate::key::Key;

/// Error for a record that is larger than a file may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record is larger than {MAX_RECORD_BYTES} bytes")]
pub struct RecordTooLong;

/// Writes one file.
#[derive(Debug)]
pub struct ExportWriter {
    records: u64,
    sum: Key,
}

impl ExportWriter {
    /// Begins a file.
    pub fn begin(out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(HEAD);
        Self { records: 0, sum: empty_sum() }
    }

    /// Adds a record. A record that is too long leaves the file unchanged.
    pub fn record(&mut self, key: &Key, record: &[u8], out: &mut Vec<u8>) -> Result<(), RecordTooLong> {
        let length = u32::try_from(record.len()).map_err(|_| RecordTooLong)?;
        // The reader takes a length of zero for damage.
        if record.is_empty() || record.len() > MAX_RECORD_BYTES {
            return Err(RecordTooLong);
        }
        let checksum = checksum(key, record);
        for part in [&RECORD_MARK[..], &length.to_le_bytes(), key.as_bytes(), record, checksum.as_bytes()] {
            out.extend_from_slice(part);
        }
        self.sum = add(&self.sum, &checksum);
        self.records += 1;
        Ok(())
    }

    /// Ends the file. Returns the number of records in it.
    pub fn end(self, out: &mut Vec<u8>) -> u64 {
        let checksum = end_checksum(self.records, &self.sum);
        for part in [&END_MARK[..], &self.records.to_le_bytes(), self.sum.as_bytes(), checksum.as_bytes()] {
            out.extend_from_slice(part);
        }
        self.records
    }
}
