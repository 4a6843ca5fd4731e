//! Marks of entries, by which shedding chooses.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The number of an entry that has been read.
const READ: u32 = 0;

/// The number of the first insertion.
const OLDEST: u32 = 1;

/// Whether an entry has been read; until then, the number of its insertion. Four bytes, since each record has one.
#[derive(Debug, Default)]
pub struct Mark(AtomicU32);

impl Mark {
    /// Marks an entry as the insertion of this number, which is never 0, or as read from the beginning.
    pub(super) fn begin(&self, number: Option<u32>) {
        self.0.store(number.unwrap_or(READ), Relaxed);
    }

    /// Marks an entry as read. Hits of many threads write only once.
    pub(super) fn read(&self) {
        if self.0.load(Relaxed) != READ {
            self.0.store(READ, Relaxed);
        }
    }

    /// Marks an entry that was read as the oldest of those that were not.
    pub(super) fn grow_old(&self) {
        if self.0.load(Relaxed) == READ {
            self.0.store(OLDEST, Relaxed);
        }
    }

    /// The number of the insertion, if the entry has not been read since.
    pub(super) fn unread(&self) -> Option<u32> {
        Some(self.0.load(Relaxed)).filter(|number| *number != READ)
    }
}
