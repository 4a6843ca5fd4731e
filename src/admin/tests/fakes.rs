//! Fake parts with fixed results.

use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::HeaderMap;
use serde_json::{Value, json};

use crate::admin::*;
use crate::process::system::Optimized;

const NOW_MS: u64 = 1_700_000_000_000;
const MIB: u64 = 1 << 20;

pub(super) struct FakeCache;

impl CacheControl for FakeCache {
    fn tiers(&self) -> Vec<TierStats> {
        let tier = |name, entries, bytes| TierStats { name, up: true, entries, bytes, ..TierStats::default() };
        vec![tier("memory", 10, 3 * MIB), tier("answers", 4, MIB), tier("disk", 500, 100 * MIB)]
    }

    fn purge(&self, model: Option<&str>, tier: Option<&str>) -> Result<Purged, UnknownTier> {
        let purged = |entries| Purged { entries, ..Purged::default() };
        match (model, tier) {
            (_, Some("tape")) => Err(UnknownTier("tape".to_owned())),
            (Some("unreachable"), _) => Ok(Purged { pending: vec!["disk", "redis"], ..purged(3) }),
            (Some("owed"), _) => Ok(Purged { pending: vec!["redis"], is_remembered: true, ..purged(3) }),
            (None, None) => Ok(purged(514)),
            _ => Ok(purged(7)),
        }
    }

    fn counters(&self) -> CacheCounters {
        CacheCounters { hits: 5, misses: 3, joined: 1, stale: 0, mock: 1 }
    }

    fn clear_lower<'a>(&'a self, tier: &'a str) -> BoxFuture<'a, Option<Purged>> {
        let purged = Purged { entries: 500, ..Purged::default() };
        Box::pin(async move { (tier == "disk").then_some(purged) })
    }

    fn explain<'a>(&'a self, path: &'a str, headers: &'a HeaderMap, body: Bytes) -> BoxFuture<'a, Value> {
        let namespace = headers.get("x-vecho-namespace").is_some();
        Box::pin(async move { json!({ "path": path, "bytes": body.len(), "namespace": namespace }) })
    }
}

/// Records the thread that purges.
#[derive(Default)]
pub(super) struct ThreadOfPurge(pub(super) Mutex<Option<ThreadId>>);

impl CacheControl for ThreadOfPurge {
    fn tiers(&self) -> Vec<TierStats> {
        FakeCache.tiers()
    }

    fn purge(&self, model: Option<&str>, tier: Option<&str>) -> Result<Purged, UnknownTier> {
        *self.0.lock().expect("the lock must hold") = Some(std::thread::current().id());
        FakeCache.purge(model, tier)
    }

    fn counters(&self) -> CacheCounters {
        FakeCache.counters()
    }

    fn clear_lower<'a>(&'a self, tier: &'a str) -> BoxFuture<'a, Option<Purged>> {
        FakeCache.clear_lower(tier)
    }

    fn explain<'a>(&'a self, path: &'a str, headers: &'a HeaderMap, body: Bytes) -> BoxFuture<'a, Value> {
        FakeCache.explain(path, headers, body)
    }
}

/// Exports two pieces and counts the bytes of its imports.
pub(super) struct FakeMoving;

impl Moving for FakeMoving {
    fn export(&self) -> BoxFuture<'_, Pieces<'static>> {
        let pieces = ["one", "two"].map(|piece| Ok(Bytes::from_static(piece.as_bytes())));
        Box::pin(async { Box::pin(stream::iter(pieces)) as Pieces<'static> })
    }

    fn import<'a>(&'a self, mut file: Pieces<'a>) -> BoxFuture<'a, Result<Imported, String>> {
        Box::pin(async move {
            let mut imported = Imported { whole: true, ..Imported::default() };
            while let Some(piece) = file.next().await {
                match piece {
                    Ok(piece) if piece.starts_with(b"not") => return Err("this is not an exported cache".to_owned()),
                    Ok(piece) => imported.imported += piece.len() as u64,
                    Err(_) => imported.whole = false,
                }
            }
            Ok(imported)
        })
    }
}

pub(super) struct FakeHealth {
    pub(super) ready: bool,
    pub(super) draining: bool,
}

impl Health for FakeHealth {
    fn ready(&self) -> bool {
        self.ready
    }

    fn draining(&self) -> bool {
        self.draining
    }

    fn breaker(&self) -> &'static str {
        "closed"
    }
}

pub(super) struct FakeMemory;

impl Memory for FakeMemory {
    fn resident_bytes(&self) -> u64 {
        100 * MIB
    }

    fn limit_bytes(&self) -> u64 {
        500 * MIB
    }

    fn optimize(&self, target_memory_mb: u64) -> BoxFuture<'_, Optimized> {
        let actions_taken = vec!["trim".to_owned()];
        let (current_memory_mb, memory_saved_mb) = (90.125_9, 9.874_1);
        let done = Optimized {
            target_memory_mb,
            current_memory_mb,
            optimization_needed: true,
            actions_taken,
            memory_saved_mb,
        };
        Box::pin(async { done })
    }
}

#[derive(Default)]
pub(super) struct FakeConfig(Mutex<String>);

impl ConfigView for FakeConfig {
    fn effective(&self) -> Value {
        json!({ "listen": "127.0.0.1:7861" })
    }

    fn in_force(&self) -> InForce {
        InForce { upstream_url: "http://upstream/v1".to_owned(), fallback_mode: "mock" }
    }

    fn set_log_level(&self, level: &str) -> Result<(), String> {
        if level == "loud" {
            return Err("unknown level `loud`".to_owned());
        }
        *self.0.lock().expect("the lock must hold") = level.to_owned();
        Ok(())
    }

    fn log_level(&self) -> String {
        self.0.lock().expect("the lock must hold").clone()
    }
}

pub(super) struct FakeMachine;

impl Machine for FakeMachine {
    fn cpu_count(&self) -> usize {
        2
    }

    fn memory_percent(&self) -> f64 {
        41.26
    }

    fn available_memory_gb(&self) -> f64 {
        7.5
    }
}

pub(super) fn context() -> AdminContext {
    AdminContext {
        metrics: Metrics::new("1.2.3"),
        cache: Arc::new(FakeCache),
        moving: Arc::new(FakeMoving),
        health: Arc::new(FakeHealth { ready: true, draining: false }),
        memory: Arc::new(FakeMemory),
        config: Arc::new(FakeConfig(Mutex::new("info".to_owned()))),
        machine: Arc::new(FakeMachine),
        feed: Arc::default(),
        guard: Guard::new(None),
        clock: Clock::manual(NOW_MS),
        max_explain_bytes: 64 << 20,
    }
}
