//! Implements the ops port's traits for the rest of the program.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;
use tokio::runtime::Handle;

use super::parts::Parts;
use super::{State, Surroundings};
use crate::admin::{
    AdminContext, CacheControl, CacheCounters, ConfigView, Feed, Guard, Health, InForce, Machine, Memory, Moving,
    Purged, TierStats, UnknownTier,
};
use crate::cache::bounded::{Bounded, Entry};
use crate::cache::reply_cache::ReplyCache;
use crate::cache::{Durability, LowerStats, Tier};
use crate::config::Live;
use crate::flow::Flow;
use crate::observe::logs::LevelHandle;
use crate::observe::metrics::{GovernorAction, Metrics, SourceLabel};
use crate::process::clock::Clock;
use crate::process::governor::Governor;
use crate::process::system::{Optimized, System};
use crate::proxy::Proxy;
use crate::upstream::Breaker;
use crate::vector::packed::Codec;
use futures_util::future::BoxFuture;

const GIB: f64 = 1_073_741_824.0;

/// Handles of everything that the ops port shows or steers.
#[derive(Clone)]
pub(super) struct Ops {
    pub(super) flow: Arc<Flow>,
    answers: Arc<ReplyCache>,
    proxy: Arc<Proxy>,
    breaker: Arc<Breaker>,
    governor: Arc<Governor>,
    system: Arc<System>,
    metrics: Arc<Metrics>,
    state: Arc<State>,
    live: Live,
    level: LevelHandle,
    pub(super) clock: Clock,
}

impl Ops {
    pub(super) fn new(parts: &Parts, proxy: &Arc<Proxy>, state: &Arc<State>, surroundings: &Surroundings) -> Self {
        Self {
            flow: Arc::clone(&parts.flow),
            answers: Arc::clone(&parts.answers),
            proxy: Arc::clone(proxy),
            breaker: Arc::clone(&parts.breaker),
            governor: Arc::clone(&parts.governor),
            system: Arc::clone(&parts.system),
            metrics: Arc::clone(&parts.metrics),
            state: Arc::clone(state),
            live: parts.live.clone(),
            level: surroundings.level.clone(),
            clock: surroundings.clock.clone(),
        }
    }
}

impl From<&Ops> for AdminContext {
    fn from(ops: &Ops) -> Self {
        let shared = Arc::new(ops.clone());
        let config = ops.live.load();
        Self {
            metrics: Arc::clone(&ops.metrics),
            cache: Arc::clone(&shared) as Arc<dyn CacheControl>,
            moving: Arc::clone(&shared) as Arc<dyn Moving>,
            health: Arc::clone(&shared) as Arc<dyn Health>,
            memory: Arc::clone(&shared) as Arc<dyn Memory>,
            config: Arc::clone(&shared) as Arc<dyn ConfigView>,
            machine: shared,
            feed: Arc::new(Feed::default()),
            guard: Guard::new(config.admin.token.as_ref()),
            clock: ops.clock.clone(),
            max_explain_bytes: config.limits.max_body_bytes,
        }
    }
}

impl Ops {
    /// Purges all tiers and returns once the purge survives a restart. Must not be called from async code: it blocks.
    fn purge_tiers(&self, model: Option<&str>) -> Purged {
        let tiers = &self.flow.tiers;
        let purge = tiers.purge(model);
        // Replies cached from purged records must not be served while slower tiers store the purge.
        self.answers.clear();
        let pending = Handle::current().block_on(tiers.settle(&purge));
        // The disk tier also stores purges that other tiers still have to receive.
        let is_remembered =
            tiers.lower().iter().any(|tier| tier.tier() == Tier::Disk) && !pending.contains(&Tier::Disk);
        let pending = pending.into_iter().map(Tier::name).collect();
        Purged { entries: purge.forgotten, pending, is_remembered }
    }

    pub(super) fn codec(&self) -> Codec {
        self.live.load().cache.codec
    }

    /// Purges the reply cache. Its entries know only the upstream's name of their model.
    fn purge_answers(&self, model: Option<&str>) -> u64 {
        let stored = self.answers.stored();
        if let Some(model) = model {
            return stored.remove_where(|answer| &*answer.validity.identity.model == model);
        }
        let gone = stored.len();
        self.answers.clear();
        gone
    }
}

impl CacheControl for Ops {
    fn tiers(&self) -> Vec<TierStats> {
        let memory = self.flow.tiers.memory();
        let own = [
            tier_stats("memory", memory.records(), memory.lookups()),
            tier_stats("answers", self.answers.stored(), self.answers.lookups()),
        ];
        let lower = self.flow.tiers.lower().iter().map(|tier| lower_stats(tier.tier().name(), tier.stats()));
        own.into_iter().chain(lower).collect()
    }

    fn purge(&self, model: Option<&str>, tier: Option<&str>) -> Result<Purged, UnknownTier> {
        match tier {
            // The reply cache depends on the memory tier and is cleared with it.
            None | Some("memory") => {
                let purged = if tier.is_none() { self.purge_tiers(model) } else { here(self.flow.tiers.forget(model)) };
                self.answers.clear();
                Ok(purged)
            }
            Some("answers") => Ok(here(self.purge_answers(model))),
            Some(other) => Err(UnknownTier(other.to_owned())),
        }
    }

    fn clear_lower<'a>(&'a self, tier: &'a str) -> BoxFuture<'a, Option<Purged>> {
        Box::pin(async move {
            let lower = self.flow.tiers.lower().iter().find(|lower| lower.tier().name() == tier)?;
            let (entries, settled) = lower.clear().await;
            let pending = if settled == Durability::Pending { vec![lower.tier().name()] } else { Vec::new() };
            Some(Purged { entries, pending, is_remembered: false })
        })
    }

    fn counters(&self) -> CacheCounters {
        let so_far = |source| self.metrics.usage.inputs_so_far(source);
        CacheCounters {
            hits: so_far(SourceLabel::Memory) + so_far(SourceLabel::Disk) + so_far(SourceLabel::Redis),
            misses: so_far(SourceLabel::Upstream),
            joined: so_far(SourceLabel::Joined),
            stale: so_far(SourceLabel::Stale),
            mock: so_far(SourceLabel::Mock),
        }
    }

    fn explain<'a>(&'a self, path: &'a str, headers: &'a HeaderMap, body: Bytes) -> BoxFuture<'a, Value> {
        Box::pin(async move { self.proxy.explain(path, headers, &body).await })
    }
}

/// Returns the result of a purge that affects only this process.
fn here(entries: u64) -> Purged {
    Purged { entries, ..Purged::default() }
}

fn tier_stats<V>(name: &'static str, map: &Bounded<V>, (hits, misses): (u64, u64)) -> TierStats
where
    V: Entry + Clone + Send + Sync + 'static,
{
    TierStats {
        name,
        entries: map.len(),
        bytes: map.bytes(),
        capacity_bytes: map.max_bytes(),
        hits,
        misses,
        evictions: map.evicted(),
        up: true,
        cause: None,
        dropped: 0,
    }
}

fn lower_stats(name: &'static str, stats: LowerStats) -> TierStats {
    let LowerStats { up, cause, entries, bytes, capacity_bytes, hits, misses, evictions, dropped } = stats;
    TierStats { name, up, cause, entries, bytes, capacity_bytes, hits, misses, evictions, dropped }
}

impl Health for Ops {
    fn ready(&self) -> bool {
        self.state.ready.load(Ordering::SeqCst) && !self.draining()
    }

    fn draining(&self) -> bool {
        self.state.draining.load(Ordering::SeqCst)
    }

    fn breaker(&self) -> &'static str {
        self.breaker.state()
    }
}

impl Memory for Ops {
    fn resident_bytes(&self) -> u64 {
        self.system.resident_bytes()
    }

    fn limit_bytes(&self) -> u64 {
        self.governor.status().limit_bytes
    }

    fn optimize(&self, target_memory_mb: u64) -> BoxFuture<'_, Optimized> {
        Box::pin(async move {
            self.metrics.memory.governor(GovernorAction::Optimize);
            self.governor.optimize(Some(target_memory_mb)).await
        })
    }
}

impl ConfigView for Ops {
    fn effective(&self) -> Value {
        self.live.load().effective.to_json()
    }

    fn in_force(&self) -> InForce {
        let config = self.live.load();
        InForce { upstream_url: config.upstream.target.to_string(), fallback_mode: config.fallback.mode.name() }
    }

    fn set_log_level(&self, level: &str) -> Result<(), String> {
        self.level.set(level).map_err(|bad| bad.to_string())
    }

    fn log_level(&self) -> String {
        self.level.current()
    }
}

impl Machine for Ops {
    fn cpu_count(&self) -> usize {
        self.system.machine().cpu_count
    }

    fn memory_percent(&self) -> f64 {
        self.system.machine().memory_percent
    }

    fn available_memory_gb(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a machine's memory fits 53 bits")]
        let bytes = self.system.machine().available_memory_bytes as f64;
        bytes / GIB
    }
}

impl fmt::Debug for Ops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ops").finish_non_exhaustive()
    }
}
