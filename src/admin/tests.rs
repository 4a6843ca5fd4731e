//! Every route of the ops port, against parts that say what the test wants to hear.

use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::{Value, json};

use super::*;
use crate::metrics::{Outcome, Route};

const NOW_MS: u64 = 1_700_000_000_000;
const MIB: u64 = 1 << 20;

struct FakeCache;

impl CacheControl for FakeCache {
    fn tiers(&self) -> Vec<TierStats> {
        let tier = |name, entries, bytes| TierStats { name, entries, bytes, ..TierStats::default() };
        vec![tier("memory", 10, 3 * MIB), tier("answers", 4, MIB), tier("disk", 500, 100 * MIB)]
    }

    fn purge(&self, model: Option<&str>, tier: Option<&str>) -> Result<u64, UnknownTier> {
        match (model, tier) {
            (_, Some("tape")) => Err(UnknownTier("tape".to_owned())),
            (None, None) => Ok(514),
            _ => Ok(7),
        }
    }

    fn counters(&self) -> CacheCounters {
        CacheCounters { hits: 5, misses: 3, joined: 1, stale: 0, mock: 1 }
    }

    fn explain(&self, path: &str, headers: &HeaderMap, body: Bytes) -> Value {
        json!({ "path": path, "bytes": body.len(), "namespace": headers.get("x-vecho-namespace").is_some() })
    }
}

struct FakeHealth {
    ready: bool,
    draining: bool,
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

    fn mocking_since_ms(&self) -> Option<u64> {
        None
    }
}

struct FakeMemory;

impl Memory for FakeMemory {
    fn resident_bytes(&self) -> u64 {
        100 * MIB
    }

    fn limit_bytes(&self) -> u64 {
        500 * MIB
    }

    fn optimize(&self, target_memory_mb: u64) -> Eventually<'_, Optimized> {
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
struct FakeConfig(Mutex<String>);

impl ConfigView for FakeConfig {
    fn effective(&self) -> Value {
        json!({ "listen": "127.0.0.1:7861" })
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

struct FakeMachine;

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

fn context() -> AdminContext {
    AdminContext {
        metrics: Metrics::new("1.2.3"),
        cache: Arc::new(FakeCache),
        health: Arc::new(FakeHealth { ready: true, draining: false }),
        memory: Arc::new(FakeMemory),
        config: Arc::new(FakeConfig(Mutex::new("info".to_owned()))),
        machine: Arc::new(FakeMachine),
        guard: Guard::new(None),
        clock: Clock::manual(NOW_MS),
        max_explain_bytes: 64 << 20,
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        assert_eq!(self.headers[CONTENT_TYPE], "application/json");
        serde_json::from_slice(&self.body).expect("the body must be JSON")
    }

    fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).expect("the body must be text")
    }
}

fn request(method: &Method, uri: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(uri).header(HOST, "localhost:7862");
    request.body(Full::new(body.into())).expect("the request must be valid")
}

async fn send<B>(context: &AdminContext, request: Request<B>) -> Answer
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let peer = "127.0.0.1:50000".parse().expect("the peer must be an address");
    let (head, body) = handle(context, request, peer).await.into_parts();
    assert_eq!(head.headers[CACHE_CONTROL], "no-store");
    let body = body.collect().await.expect("a full body cannot fail").to_bytes();
    Answer { status: head.status, headers: head.headers, body }
}

async fn get(context: &AdminContext, uri: &str) -> Answer {
    send(context, request(&Method::GET, uri, "")).await
}

async fn post(context: &AdminContext, uri: &str, body: &str) -> Answer {
    send(context, request(&Method::POST, uri, body.to_owned())).await
}

/// The names of an object, sorted.
fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn assert_error(answer: &Answer, status: StatusCode, code: &str) {
    let body = answer.json();
    assert_eq!(answer.status, status, "{body}");
    assert_eq!(keys(&body), ["error"]);
    assert_eq!(keys(&body["error"]), ["code", "message", "param", "type"]);
    assert_eq!(body["error"]["code"], code, "{body}");
}

#[tokio::test]
async fn stats_have_exactly_the_promised_fields() {
    let context = context();
    for ms in [1, 3] {
        context.metrics.request(Route::Embeddings, Outcome::Hit, Duration::from_millis(ms));
    }
    let stats = get(&context, "/api/performance/stats").await.json();
    assert_eq!(keys(&stats), ["embedding_cache", "performance_monitor", "system_info"]);
    let monitor = &stats["performance_monitor"];
    let names = ["avg_response_time_ms", "error_rate", "max", "p50", "p95", "p99"];
    let more = ["requests_per_second", "total_requests", "uptime_seconds"];
    assert_eq!(keys(monitor), [&names[..], &more[..]].concat());
    assert_eq!((&monitor["total_requests"], &monitor["avg_response_time_ms"]), (&json!(2), &json!(2.0)));
    assert_eq!((&monitor["max"], &monitor["error_rate"]), (&json!(3.0), &json!(0.0)));
    let system = json!({ "cpu_count": 2, "memory_percent": 41.3, "available_memory_gb": 7.5 });
    assert_eq!(stats["system_info"], system);
    assert_eq!(keys(&stats["embedding_cache"]), ["cache_size", "hit_ratio", "memory_usage_mb", "tiers"]);
}

#[tokio::test]
async fn cache_stats_count_vectors_once_and_only_what_is_in_memory() {
    let stats = get(&context(), "/api/performance/cache/stats").await.json();
    assert_eq!(keys(&stats), ["cache_size", "hit_ratio", "inputs", "memory_usage_mb", "tiers"]);
    assert_eq!(stats["cache_size"], 10);
    assert_eq!(stats["memory_usage_mb"], 4.0);
    assert_eq!(stats["hit_ratio"], 0.6);
    assert_eq!(stats["inputs"], json!({ "hits": 5, "misses": 3, "joined": 1, "stale": 0, "mock": 1 }));
    assert_eq!(keys(&stats["tiers"]), ["answers", "disk", "memory"]);
    let names = ["bytes", "capacity_bytes", "entries", "evictions", "hits", "misses"];
    assert_eq!(keys(&stats["tiers"]["memory"]), names);
}

#[tokio::test]
async fn health_has_exactly_the_promised_fields() {
    let answer = get(&context(), "/api/performance/health").await;
    assert_eq!(answer.status, StatusCode::OK);
    let metrics = json!({ "avg_response_time_ms": 0.0, "error_rate": 0.0, "memory_percent": 20.0 });
    assert_eq!(answer.json(), json!({ "status": "healthy", "warnings": [], "key_metrics": metrics }));
}

#[tokio::test]
async fn errors_of_the_last_minute_show_in_health() {
    let context = context();
    context.metrics.request(Route::Embeddings, Outcome::Unavailable, Duration::from_millis(1));
    let health = get(&context, "/api/performance/health").await.json();
    assert_eq!((&health["status"], &health["key_metrics"]["error_rate"]), (&json!("error"), &json!(1.0)));
}

#[tokio::test]
async fn readyz_says_why_it_refuses_and_livez_never_does() {
    let cases = [
        (true, false, 200, json!({ "ready": true, "reason": "ready" })),
        (false, false, 503, json!({ "ready": false, "reason": "starting" })),
        (true, true, 503, json!({ "ready": false, "reason": "draining" })),
    ];
    for (ready, draining, status, body) in cases {
        let context = AdminContext { health: Arc::new(FakeHealth { ready, draining }), ..context() };
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

#[tokio::test]
async fn the_index_lists_every_route() {
    let text = get(&context(), "/").await.text();
    for route in [
        "GET    /metrics",
        "DELETE /api/performance/cache ",
        "PUT    /api/log-level",
        "POST   /api/performance/cache/explain",
    ] {
        assert!(text.contains(route), "{route}\n{text}");
    }
}

#[tokio::test]
async fn optimising_takes_a_target_or_four_fifths_of_the_limit() {
    let uri = "/api/performance/optimize-memory";
    for (body, target) in [("", 400), ("{}", 400), ("{\"target_memory_mb\":123}", 123)] {
        let done = post(&context(), uri, body).await.json();
        let expected = json!({
            "target_memory_mb": target, "current_memory_mb": 90.13, "optimization_needed": true,
            "actions_taken": ["trim"], "memory_saved_mb": 9.87,
        });
        assert_eq!(done, expected, "{body}");
    }
    for (body, code) in
        [("{\"target\":1}", "invalid_body"), ("[", "invalid_body"), ("{\"target_memory_mb\":0}", "invalid_parameter")]
    {
        assert_error(&post(&context(), uri, body).await, StatusCode::BAD_REQUEST, code);
    }
}

#[tokio::test]
async fn a_purge_can_be_narrowed_and_is_counted() {
    let context = context();
    let purge = |query: &str| request(&Method::DELETE, &format!("/api/performance/cache{query}"), "");
    let all = send(&context, purge("")).await.json();
    assert_eq!(all, json!({ "purged_entries": 514, "model": null, "tier": null }));
    let some = send(&context, purge("?model=BAAI%2Fbge-m3&tier=memory")).await.json();
    assert_eq!(some, json!({ "purged_entries": 7, "model": "BAAI/bge-m3", "tier": "memory" }));
    assert_eq!(context.metrics.cache_purges.get(), 2);
}

#[tokio::test]
async fn a_misspelt_purge_lets_nothing_go() {
    let context = context();
    for query in ["?modle=x", "?model=", "?tier=tape"] {
        let answer = send(&context, request(&Method::DELETE, &format!("/api/performance/cache{query}"), "")).await;
        assert_error(&answer, StatusCode::BAD_REQUEST, "invalid_parameter");
    }
    assert_eq!(context.metrics.cache_purges.get(), 0);
}

#[tokio::test]
async fn explain_hands_over_path_headers_and_body() {
    let uri = "/api/performance/cache/explain";
    let plain = post(&context(), uri, "12345").await.json();
    assert_eq!(plain, json!({ "path": "/v1/embeddings", "bytes": 5, "namespace": false }));
    let mut request = request(&Method::POST, &format!("{uri}?path=/openai/x"), "1");
    request.headers_mut().insert("x-vecho-namespace", "a".parse().expect("a header value"));
    let other = send(&context(), request).await.json();
    assert_eq!(other, json!({ "path": "/openai/x", "bytes": 1, "namespace": true }));
}

#[tokio::test]
async fn bodies_are_bounded_each_by_its_own_limit() {
    let context = AdminContext { max_explain_bytes: 4, ..context() };
    let explained = post(&context, "/api/performance/cache/explain", "12345").await;
    assert_error(&explained, StatusCode::PAYLOAD_TOO_LARGE, "body_too_large");
    let large = " ".repeat((1 << 20) + 1);
    let levelled = send(&context, request(&Method::PUT, "/api/log-level", large)).await;
    assert_error(&levelled, StatusCode::PAYLOAD_TOO_LARGE, "body_too_large");
}

#[tokio::test]
async fn a_body_of_unknown_length_is_bounded_too() {
    let context = AdminContext { max_explain_bytes: 4, ..context() };
    let frames = ["123", "45"].map(|part| Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from(part))));
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let request = request(&Method::POST, "/api/performance/cache/explain", "").map(|_| body);
    assert_error(&send(&context, request).await, StatusCode::PAYLOAD_TOO_LARGE, "body_too_large");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_a_bad_request() {
    let broken = [Err::<http_body::Frame<Bytes>, _>(std::io::Error::other("reset"))];
    let body = StreamBody::new(futures_util::stream::iter(broken));
    let request = request(&Method::PUT, "/api/log-level", "").map(|_| body);
    assert_error(&send(&context(), request).await, StatusCode::BAD_REQUEST, "invalid_body");
}

#[tokio::test]
async fn the_log_level_is_set_by_object_or_bare_word() {
    for body in ["{\"level\":\"debug\"}", "\"debug\"", "debug\n"] {
        let answer = send(&context(), request(&Method::PUT, "/api/log-level", body)).await;
        assert_eq!(answer.json(), json!({ "level": "debug", "previous": "info" }), "{body}");
    }
    for (body, code) in [("", "invalid_body"), ("{\"lvl\":\"debug\"}", "invalid_body"), ("loud", "invalid_parameter")] {
        let answer = send(&context(), request(&Method::PUT, "/api/log-level", body)).await;
        assert_error(&answer, StatusCode::BAD_REQUEST, code);
    }
}

#[tokio::test]
async fn the_configuration_is_shown_as_it_is() {
    assert_eq!(get(&context(), "/api/config").await.json(), json!({ "listen": "127.0.0.1:7861" }));
}

#[tokio::test]
async fn unknown_routes_and_wrong_methods_are_told_apart() {
    let context = context();
    assert_error(&get(&context, "/api/nothing").await, StatusCode::NOT_FOUND, "unknown_url");
    for (method, uri, allow) in [
        (Method::POST, "/metrics", "GET, HEAD"),
        (Method::GET, "/api/performance/cache", "DELETE"),
        (Method::POST, "/api/log-level", "PUT"),
        (Method::GET, "/api/performance/optimize-memory", "POST"),
    ] {
        let answer = send(&context, request(&method, uri, "")).await;
        assert_error(&answer, StatusCode::METHOD_NOT_ALLOWED, "method_not_supported");
        assert_eq!(answer.headers[ALLOW], allow);
    }
    assert_eq!(send(&context, request(&Method::HEAD, "/readyz", "")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn strangers_look_at_figures_and_touch_nothing() {
    let context = context();
    let open = [
        "/",
        "/metrics",
        "/livez",
        "/readyz",
        "/api/performance/stats",
        "/api/performance/health",
        "/api/performance/cache/stats",
    ];
    let closed = [
        (Method::GET, "/api/config"),
        (Method::PUT, "/api/log-level"),
        (Method::DELETE, "/api/performance/cache"),
        (Method::POST, "/api/performance/optimize-memory"),
        (Method::POST, "/api/performance/cache/explain"),
    ];
    let foreign = |method: &Method, uri: &str| {
        let mut request = request(method, uri, "debug");
        request.headers_mut().insert(HOST, "evil.example".parse().expect("a header value"));
        request
    };
    for uri in open {
        assert_eq!(send(&context, foreign(&Method::GET, uri)).await.status, StatusCode::OK, "{uri}");
    }
    for (method, uri) in closed {
        assert_error(&send(&context, foreign(&method, uri)).await, StatusCode::FORBIDDEN, "forbidden");
    }
    assert_eq!(context.config.log_level(), "info");
}

#[test]
fn answering_can_move_between_threads() {
    fn must_be_send<T: Send>(_: &T) {}
    let context = context();
    must_be_send(&handle(&context, request(&Method::GET, "/", ""), ([127, 0, 0, 1], 1).into()));
}
