//! Current state for the page.

use serde_json::{Map, Value, json};

use super::super::guard::Detail;
use super::super::{AdminContext, health, performance};
use crate::config::UpstreamTarget;

/// Maximum number of incidents on the page; health lists all that are kept.
const SHOWN_INCIDENTS: usize = 10;

/// Returns the whole state except history and recent requests.
pub(super) fn now(context: &AdminContext) -> Value {
    let (metrics, config) = (&context.metrics, context.live.load());
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "at_ms": metrics.performance().now_ms(),
        "started_ms": metrics.performance().started_ms(),
        "stats": performance::figures(context, Detail::Full),
        "health": health::figures(context, Detail::Full),
        "incidents": health::incidents(context, SHOWN_INCIDENTS),
        "bypass": by_name(metrics.requests.bypasses_by_reason()),
        "inputs": by_name(metrics.usage.inputs_by_source()),
        "outcomes": by_name(metrics.requests.by_outcome()),
        "upstream": upstream(context, &config.upstream.target),
        "memory": {
            "resident_bytes": context.governor.resident_bytes(),
            "limit_bytes": context.governor.limit_bytes(),
            "actions": by_name(metrics.memory.governor_actions()),
        },
        "log_level": context.level.current(),
        "fallback_mode": config.fallback.mode.name(),
    })
}

fn upstream(context: &AdminContext, target: &UpstreamTarget) -> Value {
    let figures = context.metrics.upstream.figures();
    json!({
        "url": target.to_string(),
        "breaker": context.metrics.upstream.breaker.state().label(),
        "in_flight": context.metrics.upstream.in_flight.get(),
        "queued_inputs": context.metrics.upstream.queued_inputs.get(),
        "calls": by_name(figures.calls),
        "latency_ms": figures.latency_ms,
        "retries": figures.retries,
        "mean_inputs_per_call": figures.mean_inputs_per_call,
        "batch_sizes": figures.batch_sizes,
    })
}

fn by_name(counts: Vec<(&'static str, u64)>) -> Map<String, Value> {
    counts.into_iter().map(|(name, count)| (name.to_owned(), json!(count))).collect()
}
