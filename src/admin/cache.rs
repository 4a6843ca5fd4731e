//! Cache statistics, purges, and explanations of what the cache would do with a request.

use bytes::Bytes;
use http::{StatusCode, request};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::guard::Detail;
use super::reply::{self, AdminResponse, Refusal, megabytes, rounded, share};
use super::{AdminContext, body};
use crate::cache::{Purged, Tier, TierStats};
use crate::observe::logs::shorten_for_log;
use crate::observe::metrics::{InputSource, Metrics};

/// Default route of a request to explain or to forget.
pub(super) const EMBEDDINGS_PATH: &str = "/v1/embeddings";

/// Number of inputs answered since the start, each counted once.
#[derive(Clone, Copy, Debug, Serialize)]
struct InputCounts {
    /// Answers from a tier.
    hits: u64,
    /// Answers from the upstream.
    misses: u64,
    /// Answers from a fetch that another request had started (single-flight).
    joined: u64,
    /// Answers from an expired entry because the upstream was unavailable.
    stale: u64,
    /// Answers from the mock embedder because the upstream was unavailable.
    mock: u64,
}

impl InputCounts {
    fn of(metrics: &Metrics) -> Self {
        let so_far = |source| metrics.usage.inputs_so_far(source);
        Self {
            hits: [InputSource::Memory, InputSource::Disk, InputSource::Redis, InputSource::Derived]
                .map(so_far)
                .iter()
                .sum(),
            misses: so_far(InputSource::Upstream),
            joined: so_far(InputSource::Joined),
            stale: so_far(InputSource::Stale),
            mock: so_far(InputSource::Mock),
        }
    }

    /// Returns the share of inputs with a correct answer that needed no fetch of their own.
    fn hit_ratio(self) -> f64 {
        let good = self.hits + self.joined;
        share(good, good + self.misses + self.stale + self.mock)
    }
}

/// `GET /api/performance/cache/stats`: the summary, and the sources of the answers to inputs.
pub(super) fn stats(context: &AdminContext, detail: Detail) -> AdminResponse {
    let mut stats = summary(context, detail);
    stats["inputs"] = json!(InputCounts::of(&context.metrics));
    reply::ok(&stats)
}

/// Summarizes the caches. The cause of a failing tier is included only in full detail.
pub(super) fn summary(context: &AdminContext, detail: Detail) -> Value {
    let mut tiers = context.caches.stats();
    if detail == Detail::Figures {
        for (_, stats) in &mut tiers {
            stats.cause = None;
        }
    }
    // The cached replies are copies of what the memory tier holds, so they are no further entries.
    let entries = tiers.iter().find(|(tier, _)| *tier == Tier::Memory).map_or(0, |(_, stats)| stats.entries);
    let in_memory = tiers.iter().filter(|(tier, _)| matches!(tier, Tier::Memory | Tier::Answers));
    let bytes = in_memory.map(|(_, stats)| stats.bytes).sum();
    json!({
        "hit_ratio": rounded(InputCounts::of(&context.metrics).hit_ratio(), 4),
        "cache_size": entries,
        "memory_usage_mb": megabytes(bytes),
        "tiers": by_name(&tiers),
    })
}

fn by_name(tiers: &[(Tier, TierStats)]) -> Map<String, Value> {
    tiers.iter().map(|(tier, stats)| (tier.label().to_owned(), json!(stats))).collect()
}

/// `DELETE /api/performance/cache?model=&tier=`
pub(super) async fn purge(context: &AdminContext, head: &request::Parts) -> Result<AdminResponse, Refusal> {
    let [model, named] = body::parameters(head.uri.query(), ["model", "tier"])?;
    let tier = named.as_deref().map(tier_named).transpose()?;
    let (caches, model) = (&context.caches, model.as_deref());
    let purged = match tier {
        None => {
            let purged = caches.purge(model, context.clock.now_ms()).await;
            context.batcher.router().forget_references(model);
            purged
        }
        Some(Tier::Memory) => caches.purge_memory(model).await,
        Some(Tier::Answers) => caches.purge_replies(model).await,
        Some(tier @ (Tier::Disk | Tier::Redis)) if model.is_some() => {
            let message = format!("A model is purged from all tiers: leave `tier={}` out.", tier.label());
            return Err(bad_tier(message));
        }
        Some(tier @ (Tier::Disk | Tier::Redis)) => {
            caches.clear_lower(tier).await.ok_or_else(|| not_configured(tier))?
        }
    };
    Ok(purged_reply(context, &purged, model, named.as_deref()))
}

fn tier_named(name: &str) -> Result<Tier, Refusal> {
    Tier::ALL.iter().copied().find(|tier| tier.label() == name).ok_or_else(|| {
        let names: Vec<_> = Tier::ALL.iter().map(|tier| tier.label()).collect();
        bad_tier(format!("there is no tier `{name}`, only: {}.", names.join(", ")))
    })
}

fn not_configured(tier: Tier) -> Refusal {
    let cause = if tier == Tier::Redis { "redis.url is not set" } else { "disk.enabled is false" };
    bad_tier(format!("there is no tier `{}`: {cause}.", tier.label()))
}

fn bad_tier(message: String) -> Refusal {
    Refusal::BadParameter { param: "tier".to_owned(), message }
}

/// Returns 202 if a tier has not stored the purge yet.
fn purged_reply(context: &AdminContext, purged: &Purged, model: Option<&str>, tier: Option<&str>) -> AdminResponse {
    context.metrics.cache.purges.inc();
    let (entries, pending) = (purged.entries, purged.pending.iter().map(|tier| tier.label()).collect::<Vec<_>>());
    tracing::info!(
        entries,
        model = model.map(shorten_for_log).as_deref(),
        tier,
        ?pending,
        "entries purged on request of the ops port"
    );
    let mut answer = json!({ "purged_entries": entries, "model": model, "tier": tier, "pending": pending });
    if pending.is_empty() {
        return reply::ok(&answer);
    }
    answer["warning"] = json!(warning(&purged.pending, purged.is_remembered));
    reply::json(StatusCode::ACCEPTED, &answer)
}

/// Describes what may still happen while tiers are pending.
pub(super) fn warning(pending: &[Tier], is_remembered: bool) -> String {
    let is_pending = |tier| pending.contains(&tier);
    let mut sentences = vec!["This process serves no purged entry."];
    if is_pending(Tier::Disk) {
        sentences.push("The disk tier cannot record the purge yet.");
        sentences.push("If this process ends before that, purged entries may be served again.");
    }
    if is_pending(Tier::Redis) {
        sentences.push("Redis has not accepted the purge yet: until it does, other replicas may serve purged entries.");
        if !is_remembered {
            sentences.push("If this process ends before that, the purge never reaches them.");
        }
    }
    sentences.join(" ")
}

/// `POST /api/performance/cache/explain?path=`: the body is an embeddings request, the headers are those it would have.
pub(super) async fn explain(
    context: &AdminContext,
    head: &request::Parts,
    body: Bytes,
) -> Result<AdminResponse, Refusal> {
    let [path] = body::parameters(head.uri.query(), ["path"])?;
    let path = path.as_deref().unwrap_or(EMBEDDINGS_PATH);
    Ok(reply::ok(&context.explainer.explain(path, &head.headers, body).await))
}
