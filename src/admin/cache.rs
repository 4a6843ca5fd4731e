//! Cache statistics, purges, and explanations of what the cache would do with a request.

use std::sync::Arc;

use bytes::Bytes;
use http::{StatusCode, request};
use serde_json::{Map, Value, json};

use super::guard::Detail;
use super::reply::{self, Refusal, Reply, megabytes, rounded, share};
use super::{AdminContext, CacheCounters, Purged, TierStats, body};
use crate::observe::logs::told;

/// The tier whose entries are reported as the cache's entries.
const MEMORY_TIER: &str = "memory";
/// The tiers that live in this process's memory.
const TIERS_IN_MEMORY: &[&str] = &[MEMORY_TIER, "answers"];
/// Default route of a request to explain.
const EMBEDDINGS_PATH: &str = "/v1/embeddings";

/// `GET /api/performance/cache/stats`: the summary, and the sources of the answers to inputs.
pub(super) fn stats(context: &AdminContext, detail: Detail) -> Reply {
    let mut stats = summary(context, detail);
    stats["inputs"] = json!(context.cache.counters());
    reply::ok(&stats)
}

/// Summarizes the caches. The cause of a failing tier is included only in full detail.
pub(super) fn summary(context: &AdminContext, detail: Detail) -> Value {
    let mut tiers = context.cache.tiers();
    if detail == Detail::Figures {
        for tier in &mut tiers {
            tier.cause = None;
        }
    }
    let entries = tiers.iter().find(|tier| tier.name == MEMORY_TIER).map_or(0, |tier| tier.entries);
    let bytes = tiers.iter().filter(|tier| TIERS_IN_MEMORY.contains(&tier.name)).map(|tier| tier.bytes).sum();
    json!({
        "hit_ratio": rounded(hit_ratio(context.cache.counters()), 4),
        "cache_size": entries,
        "memory_usage_mb": megabytes(bytes),
        "tiers": by_name(&tiers),
    })
}

fn by_name(tiers: &[TierStats]) -> Map<String, Value> {
    tiers.iter().map(|tier| (tier.name.to_owned(), json!(tier))).collect()
}

/// Returns the share of inputs with a correct answer that needed no fetch of their own.
fn hit_ratio(inputs: CacheCounters) -> f64 {
    let good = inputs.hits + inputs.joined;
    share(good, good + inputs.misses + inputs.stale + inputs.mock)
}

/// `DELETE /api/performance/cache?model=&tier=`
pub(super) async fn purge(context: &AdminContext, head: &request::Parts) -> Result<Reply, Refusal> {
    let [model, tier] = body::parameters(head.uri.query(), ["model", "tier"])?;
    if let (Some(tier @ ("disk" | "redis")), Some(_)) = (tier.as_deref(), &model) {
        let message = format!("A model is purged from all tiers: leave `tier={tier}` out.");
        return Err(Refusal::BadParameter { param: "tier".to_owned(), message });
    }
    if let Some(tier) = tier.as_deref()
        && let Some(purged) = context.cache.clear_lower(tier).await
    {
        return Ok(purged_reply(context, &purged, None, Some(tier)));
    }
    let (cache, asked) = (Arc::clone(&context.cache), (model.clone(), tier.clone()));
    // A purge walks all entries, which takes milliseconds, so it must not block the runtime's threads.
    let purge = tokio::task::spawn_blocking(move || cache.purge(asked.0.as_deref(), asked.1.as_deref()));
    let purged = purge.await.expect("a purge must not panic");
    let purged =
        purged.map_err(|unknown| Refusal::BadParameter { param: "tier".to_owned(), message: format!("{unknown}.") })?;
    Ok(purged_reply(context, &purged, model.as_deref(), tier.as_deref()))
}

/// Returns 202 if a tier has not stored the purge yet.
fn purged_reply(context: &AdminContext, purged: &Purged, model: Option<&str>, tier: Option<&str>) -> Reply {
    context.metrics.cache.purges.inc();
    let Purged { entries, pending, .. } = purged;
    tracing::info!(
        entries,
        model = model.map(told).as_deref(),
        tier,
        ?pending,
        "entries were purged, as the ops port was asked to"
    );
    let mut answer = json!({ "purged_entries": entries, "model": model, "tier": tier, "pending": pending });
    if pending.is_empty() {
        return reply::ok(&answer);
    }
    answer["warning"] = json!(warning(purged));
    reply::json(StatusCode::ACCEPTED, &answer)
}

/// Describes what may still happen while tiers are pending.
fn warning(purged: &Purged) -> String {
    let is_pending = |tier: &str| purged.pending.contains(&tier);
    let mut sentences = vec!["Nothing that was purged is served by this process."];
    if is_pending("disk") {
        sentences
            .push("The disk tier could not note it: should this process end before it can, it may serve it again.");
    }
    if is_pending("redis") {
        sentences.push("Redis could not be told: until it can be, other replicas may serve it.");
        if !purged.is_remembered {
            sentences.push("Should this process end before that, they never hear of it.");
        }
    }
    sentences.join(" ")
}

/// `POST /api/performance/cache/explain?path=`: the body is an embeddings request, the headers are those it would have.
pub(super) async fn explain(context: &AdminContext, head: &request::Parts, body: Bytes) -> Result<Reply, Refusal> {
    let [path] = body::parameters(head.uri.query(), ["path"])?;
    let path = path.as_deref().unwrap_or(EMBEDDINGS_PATH);
    Ok(reply::ok(&context.cache.explain(path, &head.headers, body).await))
}
