//! The tiers below memory, as the configuration wants them.

use std::sync::{Arc, Weak};

use crate::answers::Answers;
use crate::clock::Clock;
use crate::config::Live;
use crate::epochs::{Epochs, PurgeCounts};
use crate::flow::Flow;
use crate::metrics::Metrics;
use crate::tiers::disk::{Bounds, DiskParts, DiskSettings, DiskTier};
use crate::tiers::redis::{OnPurges, RedisParts, RedisTier};
use crate::tiers::{Eventually, Leases, LowerTier, Tier};

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

impl Ground<'_> {
    /// What may wait to be written: as configured, but no more than a sixteenth of what the process may take.
    fn queue_bytes(&self, configured: usize) -> usize {
        configured.min(usize::try_from(self.limit_bytes / 16).unwrap_or(usize::MAX))
    }
}

/// The tiers below memory, in the order they are asked.
pub(super) async fn lower(ground: &Ground<'_>, redis: Option<&Arc<RedisTier>>) -> Vec<Arc<dyn LowerTier>> {
    let redis = redis.map(|redis| Arc::clone(redis) as Arc<dyn LowerTier>);
    disk(ground).await.into_iter().chain(redis).collect()
}

/// The index of what is on disk takes a tenth of the memory limit at most.
async fn disk(ground: &Ground<'_>) -> Option<Arc<dyn LowerTier>> {
    let disk = ground.live.load().disk.clone();
    let settings = DiskSettings {
        path: disk.path.filter(|_| disk.enabled)?,
        bounds: Bounds { max_bytes: disk.max_bytes, max_entries: ground.limit_bytes / 10 / INDEX_BYTES },
        queue_bytes: ground.queue_bytes(disk.queue_bytes),
        off_for: disk.off_for,
    };
    let (clock, metrics, epochs) = (ground.clock.clone(), Arc::clone(ground.metrics), Arc::clone(ground.epochs));
    Some(Arc::new(DiskTier::start(settings, DiskParts { clock, metrics, epochs }).await))
}

/// One look-up into Redis may bring values of one in so many bytes of the memory limit.
const READ_SHARE: u64 = 5;

/// The tier in Redis, if there is to be one. It has yet to begin.
pub(super) fn redis(ground: &Ground<'_>) -> Option<Arc<RedisTier>> {
    let mut config = ground.live.load().redis.clone();
    config.queue_bytes = ground.queue_bytes(config.queue_bytes);
    let (clock, metrics, epochs) = (ground.clock.clone(), Arc::clone(ground.metrics), Arc::clone(ground.epochs));
    let is_wanted = !config.nodes.is_empty();
    let max_read_bytes = usize::try_from(ground.limit_bytes / READ_SHARE).unwrap_or(usize::MAX);
    is_wanted.then(|| Arc::new(RedisTier::new(config, RedisParts { clock, metrics, epochs, max_read_bytes })))
}

/// The agreement between replicas, if they are to agree.
pub(super) fn leases(live: &Live, redis: Option<&Arc<RedisTier>>) -> Option<Arc<dyn Leases>> {
    let redis = redis.filter(|_| live.load().redis.lease.is_some())?;
    Some(Arc::clone(redis) as Arc<dyn Leases>)
}

/// What happens when purges of other replicas become known. It does not keep alive what it reaches.
pub(super) struct OthersPurges {
    flow: Weak<Flow>,
    answers: Weak<Answers>,
}

impl OthersPurges {
    pub(super) fn of(flow: &Arc<Flow>, answers: &Arc<Answers>) -> Self {
        Self { flow: Arc::downgrade(flow), answers: Arc::downgrade(answers) }
    }
}

impl OnPurges for OthersPurges {
    fn note_ahead<'a>(&'a self, counts: &'a PurgeCounts) -> Eventually<'a, ()> {
        Box::pin(async move {
            if let Some(flow) = self.flow.upgrade() {
                flow.tiers.note_ahead(counts).await;
            }
        })
    }

    fn learn(&self, counts: &PurgeCounts) -> Option<Eventually<'static, ()>> {
        let (flow, answers) = (self.flow.upgrade()?, self.answers.upgrade()?);
        let purges = flow.tiers.learn_purges(counts, Tier::Redis);
        if purges.is_empty() {
            return None;
        }
        answers.clear();
        tracing::info!(purges = purges.len(), "entries were purged, as another replica was asked to");
        Some(Box::pin(async move {
            for purge in &purges {
                flow.tiers.settle(purge).await;
            }
        }))
    }
}
