//! The tiers below memory, as the configuration wants them.

use std::sync::Arc;

use crate::clock::Clock;
use crate::config::Live;
use crate::epochs::Epochs;
use crate::metrics::Metrics;
use crate::tiers::LowerTier;
use crate::tiers::disk::{Bounds, DiskParts, DiskSettings, DiskTier};

/// What an entry on disk takes in memory at most, for finding it.
const INDEX_BYTES: u64 = 48;

/// What the tiers below memory are made of.
pub(super) struct Ground<'a> {
    pub(super) live: &'a Live,
    pub(super) clock: &'a Clock,
    pub(super) metrics: &'a Arc<Metrics>,
    pub(super) epochs: &'a Arc<Epochs>,
    /// What the process may take, in bytes.
    pub(super) limit_bytes: u64,
}

/// The tiers below memory, in the order they are asked.
pub(super) async fn lower(ground: Ground<'_>) -> Vec<Arc<dyn LowerTier>> {
    let mut lower = Vec::new();
    lower.extend(disk(&ground).await);
    lower
}

/// The index of what is on disk takes a tenth of the memory limit at most.
async fn disk(ground: &Ground<'_>) -> Option<Arc<dyn LowerTier>> {
    let disk = ground.live.load().disk.clone();
    let settings = DiskSettings {
        path: disk.path.filter(|_| disk.enabled)?,
        bounds: Bounds { max_bytes: disk.max_bytes, max_entries: ground.limit_bytes / 10 / INDEX_BYTES },
        queue_bytes: disk.queue_bytes,
        off_for: disk.off_for,
    };
    let (clock, metrics, epochs) = (ground.clock.clone(), Arc::clone(ground.metrics), Arc::clone(ground.epochs));
    Some(Arc::new(DiskTier::start(settings, DiskParts { clock, metrics, epochs }).await))
}
