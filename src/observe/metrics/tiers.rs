//! Size and state of each tier, and lookups in the lower ones.

use std::time::Duration;

use prometheus::HistogramVec;
use serde::Serialize;

use super::catalogue;
use super::handles::{Counter, Gauge, PerLabel, Registrar};
use super::labels::Tier;

/// Metrics of the tiers.
#[derive(Debug)]
pub struct TierMetrics {
    entries: PerLabel<Tier, Gauge>,
    bytes: PerLabel<Tier, Gauge>,
    capacity: PerLabel<Tier, Gauge>,
    evictions: PerLabel<Tier, Counter>,
    dropped: PerLabel<Tier, Counter>,
    down: PerLabel<Tier, Gauge>,
    lookup_duration: HistogramVec,
}

/// Size, state and hit statistics of a tier, as the ops port and the metrics show them. `hits`, `misses`, `evictions`
/// and `dropped` count since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TierStats {
    /// True if the tier works at this moment.
    pub up: bool,
    /// Reason why it does not work, if known. Contains no secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Number of entries, if known.
    pub entries: u64,
    /// Size of all entries in bytes, if known.
    pub bytes: u64,
    /// Size limit in bytes; zero if the limit is set elsewhere.
    pub capacity_bytes: u64,
    /// Lookups that found an entry.
    pub hits: u64,
    /// Lookups that found no entry.
    pub misses: u64,
    /// Entries evicted to make room.
    pub evictions: u64,
    /// Entries that were not written because the queue was full or the tier was down.
    pub dropped: u64,
}

impl TierMetrics {
    pub(super) fn new(registrar: &Registrar<'_>) -> Self {
        let lookup_duration = registrar.histograms(&catalogue::CACHE_LOOKUP_DURATION);
        // Only lookups in lower tiers are timed. Their series exist from the start, so a dashboard shows zero instead
        // of nothing. A further lower tier belongs into this list.
        for tier in [Tier::Disk, Tier::Redis] {
            lookup_duration.with_label_values(&[tier.label()]);
        }
        Self {
            entries: registrar.gauges(&catalogue::CACHE_ENTRIES),
            bytes: registrar.gauges(&catalogue::CACHE_BYTES),
            capacity: registrar.gauges(&catalogue::CACHE_CAPACITY),
            evictions: registrar.counters(&catalogue::CACHE_EVICTIONS),
            dropped: registrar.counters(&catalogue::CACHE_DROPPED),
            down: registrar.gauges(&catalogue::CACHE_TIER_DOWN),
            lookup_duration,
        }
    }

    /// Sets the size and the state of a tier; for a hook of [`on_scrape`](super::Metrics::on_scrape).
    pub fn set(&self, tier: Tier, stats: &TierStats) {
        self.entries.of(tier).set(stats.entries);
        self.bytes.of(tier).set(stats.bytes);
        self.capacity.of(tier).set(stats.capacity_bytes);
        self.evictions.of(tier).raise_to(stats.evictions);
        self.down.of(tier).set(u64::from(!stats.up));
        self.dropped.of(tier).raise_to(stats.dropped);
    }

    /// Records a lookup in a lower tier.
    pub fn lookup(&self, tier: Tier, elapsed: Duration) {
        self.lookup_duration.with_label_values(&[tier.label()]).observe(elapsed.as_secs_f64());
    }
}
