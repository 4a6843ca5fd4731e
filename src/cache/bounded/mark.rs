//! Marks of entries, which decide the order of shedding.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Mark of an entry that has been read.
const READ: u32 = 0;

/// Number of the first insertion.
const OLDEST: u32 = 1;

/// Mark of an entry: read, or the number of its insertion until then. It has four bytes, because each record has one.
#[derive(Debug, Default)]
pub struct Mark(AtomicU32);

impl Mark {
    /// Marks an entry with the number of its insertion, which is never 0, or as read.
    pub(super) fn begin(&self, number: Option<u32>) {
        self.0.store(number.unwrap_or(READ), Relaxed);
    }

    /// Marks an entry as read. Concurrent hits write only once.
    pub(super) fn read(&self) {
        if self.0.load(Relaxed) != READ {
            self.0.store(READ, Relaxed);
        }
    }

    /// Marks an entry that was read as the oldest of the unread ones.
    pub(super) fn grow_old(&self) {
        // A read between the two operations is lost, which only costs the entry its rank.
        if self.0.load(Relaxed) == READ {
            self.0.store(OLDEST, Relaxed);
        }
    }

    /// Returns the number of the insertion if the entry has not been read since.
    pub(super) fn unread(&self) -> Option<u32> {
        Some(self.0.load(Relaxed)).filter(|number| *number != READ)
    }
}
