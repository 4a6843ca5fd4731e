//! Size limits of the store.

/// Minimum size of a segment, so that a small store does not consist of many tiny files.
const MIN_SEGMENT_BYTES: u64 = 1 << 20;
/// Maximum size of a segment: the index keeps offsets in 32 bits, and 2 GiB stay below their limit.
const MAX_SEGMENT_BYTES: u64 = 1 << 31;
/// Number of segments of a full store. Space is freed by deleting the oldest segment, so one sixty-fourth of the
/// entries is lost at a time.
const SEGMENTS: u64 = 64;

/// Size limits of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskBounds {
    /// Limit on the total size of all files in the folder.
    pub max_bytes: u64,
    /// Limit on the number of entries. The in-memory index takes 24 to 48 bytes for each.
    pub max_entries: u64,
}

impl DiskBounds {
    /// Returns the largest size of a segment.
    pub(super) fn segment_bytes(self) -> u64 {
        (self.max_bytes / SEGMENTS).clamp(MIN_SEGMENT_BYTES, MAX_SEGMENT_BYTES)
    }
}
