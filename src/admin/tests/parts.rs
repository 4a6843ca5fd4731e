//! Real parts, built small: a memory tier, a reply cache, and a governor whose memory the test sets.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::HeaderMap;
use serde_json::json;

use crate::admin::*;
use crate::cache::at_rest::ChecksumKeys;
use crate::cache::bounded::MapBounds;
use crate::cache::purges::{PurgeRegistry, PurgeSubject};
use crate::cache::reply_cache::{ReplyCache, ReplyParts, Validity};
use crate::cache::{
    AtRest, Caches, Durability, ForgetOrder, LowerTier, MemoryTier, Record, Stack, Tier, TierStats, Times,
};
use crate::config::{Config, Live};
use crate::key::{Key, KeyBuilder, Tag};
use crate::learned::{ModelIdentity, SpaceState};
use crate::observe::logs::{LevelHandle, Throttled};
use crate::observe::metrics::Metrics;
use crate::process::clock::Clock;
use crate::process::governor::{Governor, Meter};
use crate::process::lifecycle::Lifecycle;
use crate::process::system::System;
use crate::spend::SpendGuard;
use crate::upstream::{Batcher, Router};
use crate::vector::Vector;

pub(super) const MIB: u64 = 1 << 20;
const NOW_MS: u64 = 1_700_000_000_000;
const BOUNDS: MapBounds = MapBounds { max_bytes: 16 * MIB, max_entries: None };

/// Memory whose size the test sets. Giving memory back reduces it to `trimmed`.
struct SetMemory {
    resident: AtomicU64,
    trimmed: u64,
}

impl Meter for SetMemory {
    fn resident_bytes(&self) -> u64 {
        self.resident.load(Ordering::SeqCst)
    }

    fn give_back(&self) {
        self.resident.store(self.trimmed, Ordering::SeqCst);
    }
}

/// Returns a governor with a limit of 500 MiB and nothing to shrink.
pub(super) fn governor(resident: u64, trimmed: u64) -> Arc<Governor> {
    let memory = SetMemory { resident: AtomicU64::new(resident), trimmed };
    Arc::new(Governor::new(Arc::new(memory), 500 * MIB, Vec::new()))
}

/// A tier below memory that holds nothing, reports 500 entries of 100 MiB together, and may be unreachable.
#[derive(Debug)]
pub(super) struct StubTier {
    tier: Tier,
    durability: Durability,
    /// Threads on which a purge was noted.
    pub(super) noted_on: Mutex<Vec<ThreadId>>,
}

impl StubTier {
    pub(super) fn new(tier: Tier, is_reachable: bool) -> Arc<Self> {
        Self::with(tier, if is_reachable { Durability::ForGood } else { Durability::Pending })
    }

    pub(super) fn with(tier: Tier, durability: Durability) -> Arc<Self> {
        Arc::new(Self { tier, durability, noted_on: Mutex::default() })
    }
}

impl LowerTier for StubTier {
    fn tier(&self) -> Tier {
        self.tier
    }

    fn remembers_purges(&self) -> bool {
        self.tier == Tier::Disk
    }

    fn get<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Vec<Option<Bytes>>> {
        Box::pin(std::future::ready(vec![None; keys.len()]))
    }

    fn put(&self, _: Key, _: AtRest) {}

    fn add_unsent(&self, _: &PurgeSubject) {
        self.noted_on.lock().expect("the lock must hold").push(std::thread::current().id());
    }

    fn purged<'a>(&'a self, _: &'a Arc<PurgeRegistry>, _: &'a PurgeSubject) -> BoxFuture<'a, (u64, Durability)> {
        Box::pin(std::future::ready((0, self.durability)))
    }

    fn clear(&self) -> BoxFuture<'_, (u64, Durability)> {
        Box::pin(std::future::ready((500, self.durability)))
    }

    fn each(&self, _: &mut dyn FnMut(&Key, &[u8]) -> ControlFlow<()>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn stats(&self) -> TierStats {
        TierStats { up: true, entries: 500, bytes: 100 * MIB, ..TierStats::default() }
    }

    fn close(&self, _: Duration) -> BoxFuture<'_, usize> {
        Box::pin(std::future::ready(0))
    }
}

pub(super) fn key(n: u64) -> Key {
    KeyBuilder::new(None).finish().extend(Tag::Text, &n.to_le_bytes())
}

/// Stores a vector of `model` with this many components in memory.
pub(super) fn remember(context: &AdminContext, key: Key, model: &str, components: usize) {
    let vector = Vector::from_components(&vec![0.1; components]).expect("it is a vector");
    let fresh_until_ms = NOW_MS + 1_000;
    let times = Times { created_ms: NOW_MS, fresh_until_ms, stale_until_ms: fresh_until_ms };
    let identity = ModelIdentity { model: model.into(), dimension: components, revision: 0 };
    let record = Arc::new(Record::new(vector, identity, times, None));
    let tiers = context.caches.tiers();
    assert!(tiers.remember(key, &record, tiers.generation()));
}

/// Returns a reply cache with one reply of 1 MiB.
fn reply_cache(metrics: &Metrics, tiers: &Stack) -> ReplyCache {
    let (replies, space_state) = (ReplyCache::new(BOUNDS), Arc::new(SpaceState::default()));
    let parts = ReplyParts {
        body: Bytes::from(vec![b'x'; 1 << 20]),
        inputs: 1,
        tokens: 1,
        headers: HeaderMap::new(),
        account: metrics.accounts().of("a", "", "a"),
        validity: Validity {
            fresh_until_ms: NOW_MS + 1_000,
            identity: space_state.learn("a", 1, 0).0,
            replacements: space_state.replacements(),
            space_state,
            generation: tiers.generation(),
            accepted_credential: None,
        },
    };
    replies.put(key(0), parts);
    replies
}

pub(super) fn context() -> AdminContext {
    context_over(Vec::new())
}

/// Returns a context with these tiers below memory, 100 MiB of resident memory, and the time at which all parts began.
pub(super) fn context_over(lower: Vec<Arc<dyn LowerTier>>) -> AdminContext {
    let config = Config::from_pairs(&[("upstream.url", "http://upstream/v1"), ("listen", "127.0.0.1:7861")]);
    let metrics = Metrics::new("1.2.3");
    let tiers = Stack::new(MemoryTier::new(BOUNDS), lower, Arc::default(), ChecksumKeys::default());
    let replies = reply_cache(&metrics, &tiers);
    let live = Live::new(config.expect("it must be free of faults"));
    let reports = || (Arc::clone(&metrics), Throttled::default());
    let router = Router::several(Vec::new(), None, live.clone(), reports());
    AdminContext {
        caches: Caches::new(Arc::new(tiers), Arc::new(replies)),
        explainer: Explainer::new(
            async |path, headers: HeaderMap, body: Bytes| json!({ "path": path, "bytes": body.len(), "namespace": headers.contains_key("x-vecho-namespace") }),
        ),
        finder: Finder::new(async |_, _, _| Ok(ForgetOrder::default())),
        lifecycle: Arc::new(lifecycle(true, false)),
        governor: governor(100 * MIB, 100 * MIB),
        system: Arc::new(System::new()),
        batcher: Batcher::new(router, live.clone(), MIB, Arc::clone(&metrics)),
        spend: SpendGuard::new(live.clone(), Clock::manual(NOW_MS), reports()),
        live,
        level: LevelHandle::detached(),
        feed: Arc::default(),
        guard: Guard::new(None),
        clock: Clock::manual(NOW_MS),
        metrics,
    }
}

/// Returns a context in which bodies of embeddings requests may have at most `max_body_bytes`.
pub(super) fn context_with_bodies(max_body_bytes: usize) -> AdminContext {
    let context = context();
    let mut config = Config::clone(&context.live.load());
    config.limits.max_body_bytes = max_body_bytes;
    context.live.store(config);
    context
}

pub(super) fn lifecycle(is_started: bool, is_draining: bool) -> Lifecycle {
    let lifecycle = Lifecycle::default();
    if is_started {
        lifecycle.start();
    }
    if is_draining {
        lifecycle.begin_drain();
    }
    lifecycle
}
