//! The first tier: records in the memory of this process, bounded in bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Record;
use super::map_stats::map_stats;
use crate::cache::bounded::{Bounded, MapBounds};
use crate::key::Key;
use crate::observe::metrics::TierStats;

/// Number of shards, so writers on a few cores seldom contend for a lock.
const PARTS: usize = 16;

/// The memory tier.
pub struct MemoryTier {
    records: Bounded<Arc<Record>>,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl MemoryTier {
    /// Creates an empty tier.
    pub fn new(bounds: MapBounds) -> Self {
        Self { records: Bounded::new(bounds, PARTS), hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    /// Returns the record under `key` at any age, and counts a hit or a miss.
    pub fn get(&self, key: &Key) -> Option<Arc<Record>> {
        let record = self.records.get(key);
        let counter = if record.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        record
    }

    /// Returns the record under `key` without counting a hit or a miss.
    pub fn peek(&self, key: &Key) -> Option<Arc<Record>> {
        self.records.get(key)
    }

    /// Stores a record.
    pub fn put(&self, key: Key, record: Arc<Record>) {
        self.records.insert(key, record);
    }

    /// Returns the underlying map, for purges, sizes and shedding.
    pub const fn records(&self) -> &Bounded<Arc<Record>> {
        &self.records
    }

    /// Returns the statistics of the tier.
    pub fn stats(&self) -> TierStats {
        map_stats(&self.records, (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyBuilder;

    #[test]
    fn peeks_are_not_counted_as_lookups() {
        let tier = MemoryTier::new(MapBounds { max_bytes: 1 << 20, max_entries: None });
        let key = KeyBuilder::new(None).finish();
        assert!(tier.peek(&key).is_none() && tier.get(&key).is_none());
        assert_eq!((tier.stats().hits, tier.stats().misses), (0, 1));
    }
}
