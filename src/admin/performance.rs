//! Figures of the service, and memory release on request.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::AdminContext;
use super::cache;
use super::guard::Detail;
use super::rate_limits;
use super::reply::{self, AdminResponse, Refusal, gigabytes, rounded};
use super::savings;
use super::targets;

/// Default target of an optimisation, as a percentage of the memory limit.
const DEFAULT_TARGET_PERCENT: u64 = 80;
const BYTES_PER_MB: u64 = 1 << 20;

/// `GET /api/performance/stats`
pub(super) fn stats(context: &AdminContext, detail: Detail) -> AdminResponse {
    reply::ok(&figures(context, detail))
}

/// Returns all figures that the route and the dashboard show.
pub(super) fn figures(context: &AdminContext, detail: Detail) -> Value {
    let machine = context.system.machine();
    json!({
        "performance_monitor": monitor(context),
        "embedding_cache": cache::summary(context, detail),
        "system_info": {
            "cpu_count": machine.cpu_count,
            "memory_percent": rounded(machine.memory_percent, 1),
            "available_memory_gb": gigabytes(machine.available_memory_bytes),
        },
        "savings": savings::figures(context),
        "latency_ms": latencies(context),
        "targets": targets::figures(context),
        "rate_limits": rate_limits::figures(context),
    })
}

/// Returns the request figures. `max`, `p50`, `p95` and `p99` are response times in milliseconds, since the start.
fn monitor(context: &AdminContext) -> Value {
    let now = context.metrics.performance().snapshot();
    json!({
        "uptime_seconds": rounded(now.uptime_seconds, 3),
        "total_requests": now.total_requests,
        "avg_response_time_ms": rounded(now.avg_response_time_ms, 3),
        "requests_per_second": rounded(now.requests_per_second, 2),
        "error_rate": rounded(now.error_rate, 4),
        "max": rounded(now.max_ms, 3),
        "p50": rounded(now.p50_ms, 3),
        "p95": rounded(now.p95_ms, 3),
        "p99": rounded(now.p99_ms, 3),
    })
}

/// Returns response times by outcome since the start, accurate to one percent.
fn latencies(context: &AdminContext) -> Map<String, Value> {
    let seen = context.metrics.performance().by_outcome();
    seen.into_iter().map(|(outcome, times)| (outcome.to_owned(), json!(times))).collect()
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct OptimizeRequest {
    target_memory_mb: Option<u64>,
}

/// `POST /api/performance/optimize-memory`
pub(super) async fn optimize_memory(context: &AdminContext, body: Bytes) -> Result<AdminResponse, Refusal> {
    let asked = optimize_request(&body)?.target_memory_mb;
    let by_default = context.governor.limit_bytes() / 100 * DEFAULT_TARGET_PERCENT / BYTES_PER_MB;
    let mut done = context.governor.optimize(Some(asked.unwrap_or(by_default))).await;
    done.current_memory_mb = rounded(done.current_memory_mb, 2);
    done.memory_saved_mb = rounded(done.memory_saved_mb, 2);
    Ok(reply::ok(&done))
}

fn optimize_request(body: &[u8]) -> Result<OptimizeRequest, Refusal> {
    if body.trim_ascii().is_empty() {
        return Ok(OptimizeRequest::default());
    }
    let request: OptimizeRequest = serde_json::from_slice(body).map_err(|error| {
        Refusal::BadBody(format!("The body must be empty or like {{\"target_memory_mb\": 400}}: {error}."))
    })?;
    if request.target_memory_mb == Some(0) {
        let message = "target_memory_mb must be at least 1.".to_owned();
        return Err(Refusal::BadParameter { param: "target_memory_mb".to_owned(), message });
    }
    Ok(request)
}
