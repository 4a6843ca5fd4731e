//! Size and state of each tier, and lookups in the lower ones.

use std::time::Duration;

use prometheus::HistogramVec;

use super::catalogue;
use super::handles::{Counter, Gauge, PerLabel, Registrar};
use super::labels::TierLabel;

/// Metrics of the tiers.
#[derive(Debug)]
pub struct TierMetrics {
    entries: PerLabel<TierLabel, Gauge>,
    bytes: PerLabel<TierLabel, Gauge>,
    capacity: PerLabel<TierLabel, Gauge>,
    evictions: PerLabel<TierLabel, Counter>,
    dropped: PerLabel<TierLabel, Counter>,
    down: PerLabel<TierLabel, Gauge>,
    lookup_duration: HistogramVec,
}

/// Size of a tier at one point in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierLevels {
    /// Entries held.
    pub entries: u64,
    /// Bytes held.
    pub bytes: u64,
    /// Capacity in bytes.
    pub capacity_bytes: u64,
    /// Entries evicted to make room, since the start.
    pub evictions: u64,
}

impl TierMetrics {
    pub(super) fn new(shelf: &Registrar<'_>) -> Self {
        let lookup_duration = shelf.histograms(&catalogue::CACHE_LOOKUP_DURATION);
        for tier in [TierLabel::Disk, TierLabel::Redis] {
            lookup_duration.with_label_values(&[tier.label()]);
        }
        Self {
            entries: shelf.gauges(&catalogue::CACHE_ENTRIES),
            bytes: shelf.gauges(&catalogue::CACHE_BYTES),
            capacity: shelf.gauges(&catalogue::CACHE_CAPACITY),
            evictions: shelf.counters(&catalogue::CACHE_EVICTIONS),
            dropped: shelf.counters(&catalogue::CACHE_DROPPED),
            down: shelf.gauges(&catalogue::CACHE_TIER_DOWN),
            lookup_duration,
        }
    }

    /// Sets the size of a tier; for a hook of [`on_scrape`](super::Metrics::on_scrape).
    pub fn size(&self, tier: TierLabel, levels: TierLevels) {
        self.entries.of(tier).set(levels.entries);
        self.bytes.of(tier).set(levels.bytes);
        self.capacity.of(tier).set(levels.capacity_bytes);
        self.evictions.of(tier).raise_to(levels.evictions);
    }

    /// Sets the state of a lower tier and its dropped writes; for a hook of
    /// [`on_scrape`](super::Metrics::on_scrape).
    pub fn lower(&self, tier: TierLabel, up: bool, dropped: u64) {
        self.down.of(tier).set(u64::from(!up));
        self.dropped.of(tier).raise_to(dropped);
    }

    /// Records a lookup in a lower tier.
    pub fn lookup(&self, tier: TierLabel, elapsed: Duration) {
        self.lookup_duration.with_label_values(&[tier.label()]).observe(elapsed.as_secs_f64());
    }
}
