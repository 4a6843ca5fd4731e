//! Creates the lower tiers that the configuration requests.

use std::sync::{Arc, Weak};

use crate::cache::disk::{DiskBounds, DiskParts, DiskSettings, DiskTier};
use crate::cache::purges::{PurgeNews, PurgeRegistry};
use crate::cache::redis::{OnPurges, RedisParts, RedisTier};
use crate::cache::reply_cache::ReplyCache;
use crate::cache::{Leases, LowerTier, Purge, Tier};
use crate::config::{LeaseMode, Live};
use crate::flow::Flow;
use crate::observe::metrics::Metrics;
use crate::process::clock::Clock;
use crate::process::shared_fields::SharedFields;
use crate::spend::{SpendGuard, SpendKeeper};
use futures_util::future::BoxFuture;

/// Maximum memory per disk entry for the index, in bytes.
const INDEX_BYTES: u64 = 48;

/// Handles that the lower tiers need.
pub(super) struct TierHandles<'a> {
    pub(super) live: &'a Live,
    pub(super) clock: &'a Clock,
    pub(super) metrics: &'a Arc<Metrics>,
    pub(super) purges: &'a Arc<PurgeRegistry>,
    /// Memory limit of the process in bytes.
    pub(super) limit_bytes: u64,
}

impl TierHandles<'_> {
    /// Returns the queue size: as configured, but at most a sixteenth of the memory limit.
    fn queue_bytes(&self, configured: usize) -> usize {
        configured.min(usize::try_from(self.limit_bytes / 16).unwrap_or(usize::MAX))
    }
}

/// Returns the lower tiers in lookup order.
pub(super) async fn lower(handles: &TierHandles<'_>, redis: Option<&Arc<RedisTier>>) -> Vec<Arc<dyn LowerTier>> {
    let redis = redis.map(|redis| Arc::clone(redis) as Arc<dyn LowerTier>);
    // A local read is faster than a round trip to Redis, so the disk comes first.
    disk(handles).await.into_iter().chain(redis).collect()
}

/// Starts the disk tier. Its index takes at most a tenth of the memory limit.
async fn disk(handles: &TierHandles<'_>) -> Option<Arc<dyn LowerTier>> {
    let disk = handles.live.load().disk.clone();
    let settings = DiskSettings {
        path: disk.path.filter(|_| disk.enabled)?,
        bounds: DiskBounds { max_bytes: disk.max_bytes, max_entries: handles.limit_bytes / 10 / INDEX_BYTES },
        queue_bytes: handles.queue_bytes(disk.queue_bytes),
        off_for: disk.off_for,
    };
    let (clock, metrics, purges) = (handles.clock.clone(), Arc::clone(handles.metrics), Arc::clone(handles.purges));
    Some(Arc::new(DiskTier::start(settings, DiskParts { clock, metrics, purges }).await))
}

/// Divisor of the memory limit for the values of one Redis lookup.
const READ_SHARE: u64 = 5;

/// Creates the Redis tier if it is configured, without starting it.
pub(super) fn redis(handles: &TierHandles<'_>) -> Option<Arc<RedisTier>> {
    let mut config = handles.live.load().redis.clone();
    config.queue_bytes = handles.queue_bytes(config.queue_bytes);
    let (clock, metrics, purges) = (handles.clock.clone(), Arc::clone(handles.metrics), Arc::clone(handles.purges));
    let is_wanted = !config.nodes.is_empty();
    let max_read_bytes = usize::try_from(handles.limit_bytes / READ_SHARE).unwrap_or(usize::MAX);
    is_wanted.then(|| Arc::new(RedisTier::new(config, RedisParts { clock, metrics, purges, max_read_bytes })))
}

/// Returns the leases between replicas if they are configured.
pub(super) fn lease_store(live: &Live, redis: Option<&Arc<RedisTier>>) -> Option<Arc<dyn Leases>> {
    let redis = redis.filter(|_| live.load().redis.lease != LeaseMode::Off)?;
    Some(Arc::clone(redis) as Arc<dyn Leases>)
}

/// Creates the keeper of the budgets' counts: in the folder of the disk tier, and in Redis.
pub(super) fn spend_keeper(live: &Live, spend: &Arc<SpendGuard>, redis: Option<&Arc<RedisTier>>) -> Arc<SpendKeeper> {
    let disk = &live.load().disk;
    let folder = disk.path.clone().filter(|_| disk.enabled);
    let shared = redis.map(|redis| Arc::clone(redis) as Arc<dyn SharedFields>);
    SpendKeeper::new(Arc::clone(spend), folder, shared)
}

/// Reacts to purges of other replicas. It holds weak references, so it does not keep the parts alive.
pub(super) struct OthersPurges {
    flow: Weak<Flow>,
    reply_cache: Weak<ReplyCache>,
}

impl OthersPurges {
    pub(super) fn of(flow: &Arc<Flow>, reply_cache: &Arc<ReplyCache>) -> Self {
        Self { flow: Arc::downgrade(flow), reply_cache: Arc::downgrade(reply_cache) }
    }
}

impl OnPurges for OthersPurges {
    fn note_ahead<'a>(&'a self, news: &'a PurgeNews) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if let Some(flow) = self.flow.upgrade() {
                flow.tiers.note_ahead(news).await;
            }
        })
    }

    fn learn(&self, news: &PurgeNews) -> Option<BoxFuture<'static, ()>> {
        let (flow, reply_cache) = (self.flow.upgrade()?, self.reply_cache.upgrade()?);
        // Purged entries leave memory at once. The returned future tells the other tiers below memory.
        let purges = flow.tiers.learn_purges(news, Tier::Redis);
        if purges.is_empty() {
            return None;
        }
        reply_cache.clear();
        if purges.iter().any(Purge::is_of_models) {
            // References of other models are read again.
            flow.batcher.router().forget_references(None);
        }
        tracing::info!(purges = purges.len(), "entries purged on request of another replica");
        Some(Box::pin(async move {
            for purge in &purges {
                flow.tiers.settle(purge).await;
            }
        }))
    }
}
