//! Tests of the figures: exactly the documented fields, with the correct numbers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::json;

use super::client::{get, keys};
use super::parts::{MIB, StubTier, context, context_over, key, lifecycle, remember};
use crate::admin::AdminContext;
use crate::admin::reply::{megabytes, rounded};
use crate::observe::metrics::{Ended, InputSource, Outcome, Route, Tier};

fn end(context: &AdminContext, outcome: Outcome, elapsed: Duration) {
    end_as(context, outcome, 200, elapsed);
}

fn end_as(context: &AdminContext, outcome: Outcome, status: u16, elapsed: Duration) {
    context.metrics.requests.ended(Ended {
        route: Route::Embeddings,
        outcome,
        status: Some(status),
        begun: Instant::now(),
        elapsed,
        subject: None,
    });
}

#[tokio::test]
async fn stats_have_exactly_the_documented_fields() {
    let context = context();
    for ms in [1, 3] {
        end(&context, Outcome::Hit, Duration::from_millis(ms));
    }
    let stats = get(&context, "/api/performance/stats").await.json();
    let parts = ["embedding_cache", "latency_ms", "performance_monitor", "rate_limits", "savings", "system_info"];
    assert_eq!(keys(&stats), [&parts[..], &["targets"]].concat());
    let monitor = &stats["performance_monitor"];
    let names = ["avg_response_time_ms", "error_rate", "max", "p50", "p95", "p99"];
    let more = ["requests_per_second", "total_requests", "uptime_seconds"];
    assert_eq!(keys(monitor), [&names[..], &more[..]].concat());
    assert_eq!((&monitor["total_requests"], &monitor["avg_response_time_ms"]), (&json!(2), &json!(2.0)));
    assert_eq!((&monitor["max"], &monitor["error_rate"]), (&json!(3.0), &json!(0.0)));
    let system = &stats["system_info"];
    assert_eq!(keys(system), ["available_memory_gb", "cpu_count", "memory_percent"]);
    let number = |name: &str| system[name].as_f64().expect("it is a number");
    assert_eq!(system["cpu_count"], context.system.machine().cpu_count);
    let (percent, available) = (number("memory_percent"), number("available_memory_gb"));
    assert!((0.0..=100.0).contains(&percent) && available > 0.0, "{system}");
    assert_eq!(json!([percent, available]), json!([rounded(percent, 1), rounded(available, 2)]));
    assert_eq!(keys(&stats["embedding_cache"]), ["cache_size", "hit_ratio", "memory_usage_mb", "tiers"]);
}

#[tokio::test]
async fn cache_stats_count_each_vector_once_and_only_those_in_memory() {
    let context = context_over(vec![StubTier::new(Tier::Disk, true)]);
    (0..10).for_each(|n| remember(&context, key(n), "m", 8));
    for (source, inputs) in [
        (InputSource::Memory, 3),
        (InputSource::Disk, 2),
        (InputSource::Upstream, 3),
        (InputSource::Joined, 1),
        (InputSource::Mock, 1),
    ] {
        context.metrics.usage.inputs(source, inputs);
    }
    let stats = get(&context, "/api/performance/cache/stats").await.json();
    assert_eq!(keys(&stats), ["cache_size", "hit_ratio", "inputs", "memory_usage_mb", "tiers"]);
    assert_eq!(stats["cache_size"], 10);
    let bytes = ["memory", "answers"].map(|tier| stats["tiers"][tier]["bytes"].as_u64().expect("it is a number"));
    assert!(bytes[0] > 0 && bytes[1] > MIB, "{bytes:?}");
    assert_eq!(stats["memory_usage_mb"], megabytes(bytes.iter().sum()));
    assert_eq!(stats["hit_ratio"], 0.6);
    assert_eq!(stats["inputs"], json!({ "hits": 5, "misses": 3, "joined": 1, "stale": 0, "mock": 1 }));
    assert_eq!(keys(&stats["tiers"]), ["answers", "disk", "memory"]);
    assert_eq!(stats["tiers"]["disk"]["bytes"], 100 * MIB);
    let names = ["bytes", "capacity_bytes", "dropped", "entries", "evictions", "hits", "misses", "up"];
    assert_eq!(keys(&stats["tiers"]["memory"]), names);
}

#[tokio::test]
async fn health_has_exactly_the_documented_fields() {
    let answer = get(&context(), "/api/performance/health").await;
    assert_eq!(answer.status, StatusCode::OK);
    let metrics = json!({ "avg_response_time_ms": 0.0, "error_rate": 0.0, "memory_percent": 20.0 });
    assert_eq!(answer.json(), json!({ "status": "healthy", "warnings": [], "incidents": [], "key_metrics": metrics }));
}

#[tokio::test]
async fn errors_of_the_last_minute_show_in_health() {
    let context = context();
    let fail = || end(&context, Outcome::Unavailable, Duration::from_millis(1));
    (0..19).for_each(|_| fail());
    let health = get(&context, "/api/performance/health").await.json();
    assert_eq!((&health["status"], &health["key_metrics"]["error_rate"]), (&json!("healthy"), &json!(1.0)));
    fail();
    let health = get(&context, "/api/performance/health").await.json();
    assert_eq!((&health["status"], &health["key_metrics"]["error_rate"]), (&json!("error"), &json!(1.0)));
}

#[tokio::test]
async fn refusals_by_the_upstream_do_not_count_as_errors() {
    let context = context();
    for _ in 0..100 {
        end(&context, Outcome::Refused, Duration::from_millis(1));
    }
    let health = get(&context, "/api/performance/health").await.json();
    assert_eq!((&health["status"], &health["key_metrics"]["error_rate"]), (&json!("healthy"), &json!(0.0)));
    let stats = get(&context, "/api/performance/stats").await.json();
    assert_eq!(stats["performance_monitor"]["error_rate"], json!(0.0));
}

#[tokio::test]
async fn client_errors_do_not_degrade_health_but_overload_does() {
    for (status, health) in [(400, "healthy"), (413, "healthy"), (503, "error")] {
        let context = context();
        for _ in 0..30 {
            end_as(&context, Outcome::Rejected, status, Duration::from_millis(1));
        }
        assert_eq!(get(&context, "/api/performance/health").await.json()["status"], health, "{status}");
    }
}

#[tokio::test]
async fn readyz_reports_its_reason_and_livez_always_succeeds() {
    let cases = [
        (true, false, 200, json!({ "ready": true, "reason": "ready" })),
        (false, false, 503, json!({ "ready": false, "reason": "starting" })),
        (true, true, 503, json!({ "ready": false, "reason": "draining" })),
    ];
    for (is_started, is_draining, status, body) in cases {
        let context = AdminContext { lifecycle: Arc::new(lifecycle(is_started, is_draining)), ..context() };
        let answer = get(&context, "/readyz").await;
        assert_eq!((answer.status.as_u16(), answer.json()), (status, body));
        assert_eq!(get(&context, "/livez").await.json(), json!({ "alive": true }));
    }
}

#[tokio::test]
async fn metrics_are_served_in_prometheus_text_format() {
    let answer = get(&context(), "/metrics").await;
    assert_eq!(answer.headers[CONTENT_TYPE], "text/plain; version=0.0.4");
    assert!(answer.text().contains("vecho_build_info{version=\"1.2.3\"} 1\n"));
}
