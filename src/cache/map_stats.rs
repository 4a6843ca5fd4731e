//! Statistics of the tiers that are maps in memory.

use super::bounded::{Bounded, Entry};
use crate::observe::metrics::TierStats;

/// Returns the statistics of a map with the given hits and misses. A map is always up and drops no entry.
pub(super) fn map_stats<V>(map: &Bounded<V>, (hits, misses): (u64, u64)) -> TierStats
where
    V: Entry + Clone + Send + Sync + 'static,
{
    TierStats {
        up: true,
        cause: None,
        entries: map.len(),
        bytes: map.bytes(),
        capacity_bytes: map.max_bytes(),
        hits,
        misses,
        evictions: map.evicted(),
        dropped: 0,
    }
}
