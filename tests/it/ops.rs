//! The ops port over real sockets: figures, actions, and access control.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::harness::client::{Answer, Client, raw};
use crate::harness::ops::metric;
use crate::harness::{Behaviour, Inside, Stub, Vecho};

fn ask(model: &str, inputs: &[&str]) -> Value {
    json!({"model": model, "input": inputs})
}

async fn get(vecho: &Inside, path: &str) -> Answer {
    Client::new().get(&format!("http://{}{path}", vecho.admin())).await
}

async fn call(vecho: &Inside, method: http::Method, path: &str, body: impl Into<bytes::Bytes>) -> Answer {
    let request = raw(method, &format!("http://{}{path}", vecho.admin()), body);
    Client::new().send(request).await.expect("the ops port answers")
}

async fn purge(vecho: &Inside, query: &str) -> Value {
    let answer = call(vecho, http::Method::DELETE, &format!("/api/performance/cache{query}"), "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["purged_entries"].clone()
}

async fn is_hit(vecho: &Inside, model: &str, input: &str) -> bool {
    let answer = vecho.embed_with(&[("cache-control", "only-if-cached")], ask(model, &[input])).await;
    answer.status == 200
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[tokio::test]
async fn stats_and_health_have_the_documented_fields_and_count_traffic() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[]).await;
    vecho.embed(ask("tiny", &["a", "b"])).await;
    vecho.embed(ask("tiny", &["a", "b", "c"])).await;
    let stats = get(&vecho, "/api/performance/stats").await.json();
    let figures = ["embedding_cache", "latency_ms", "performance_monitor", "rate_limits", "savings", "system_info"];
    assert_eq!(keys(&stats), [&figures[..], &["targets"]].concat());
    let monitor =
        ["avg_response_time_ms", "error_rate", "max", "p50", "p95", "p99", "requests_per_second", "total_requests"];
    assert_eq!(keys(&stats["performance_monitor"]), [&monitor[..], &["uptime_seconds"]].concat());
    assert_eq!(keys(&stats["embedding_cache"]), ["cache_size", "hit_ratio", "memory_usage_mb", "tiers"]);
    assert_eq!(keys(&stats["system_info"]), ["available_memory_gb", "cpu_count", "memory_percent"]);
    assert_eq!(stats["performance_monitor"]["total_requests"], 2);
    assert_eq!(
        (&stats["embedding_cache"]["cache_size"], &stats["embedding_cache"]["hit_ratio"]),
        (&json!(3), &json!(0.4))
    );
    let health = get(&vecho, "/api/performance/health").await.json();
    assert_eq!(keys(&health), ["incidents", "key_metrics", "status", "warnings"]);
    assert_eq!(keys(&health["key_metrics"]), ["avg_response_time_ms", "error_rate", "memory_percent"]);
    let cache = get(&vecho, "/api/performance/cache/stats").await.json();
    assert_eq!(cache["inputs"], json!({"hits": 2, "misses": 3, "joined": 0, "stale": 0, "mock": 0}));
    let tier = ["bytes", "capacity_bytes", "dropped", "entries", "evictions", "hits", "misses", "up"];
    assert_eq!((keys(&cache["tiers"]["memory"]), &cache["tiers"]["memory"]["entries"]), (tier.to_vec(), &json!(3)));
}

#[tokio::test]
async fn freeing_memory_returns_the_documented_fields_with_measured_values() {
    let vecho = Inside::start("mock:", &[]).await;
    let path = "/api/performance/optimize-memory";
    let done = call(&vecho, http::Method::POST, path, r#"{"target_memory_mb":1}"#).await.json();
    let fields = ["actions_taken", "current_memory_mb", "memory_saved_mb", "optimization_needed", "target_memory_mb"];
    assert_eq!(keys(&done), fields);
    assert_eq!((&done["target_memory_mb"], &done["optimization_needed"]), (&json!(1), &json!(true)));
    assert!(done["current_memory_mb"].as_f64().is_some_and(|mb| mb > 1.0), "{done}");
    let idle = call(&vecho, http::Method::POST, path, r#"{"target_memory_mb":1000000}"#).await.json();
    assert_eq!((&idle["optimization_needed"], &idle["actions_taken"]), (&json!(false), &json!([])));
    for bad in [r#"{"target_memory_mb":0}"#, r#"{"target":1}"#, "[", r#"{"target_memory_mb":-1}"#] {
        assert_eq!(call(&vecho, http::Method::POST, path, bad).await.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn a_purge_removes_everything_or_one_model_or_one_tier() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[]).await;
    let fill = async || {
        for model in ["tiny", "other"] {
            // The second request fills the reply cache.
            vecho.embed(ask(model, &["a", "b"])).await;
            vecho.embed(ask(model, &["a", "b"])).await;
        }
    };
    fill().await;
    assert_eq!(purge(&vecho, "?model=tiny").await, 2);
    assert_eq!((is_hit(&vecho, "tiny", "a").await, is_hit(&vecho, "other", "a").await), (false, true));
    fill().await;
    assert!(purge(&vecho, "?tier=answers").await.as_u64().is_some_and(|gone| gone >= 1));
    assert!(metric(vecho.admin(), r#"vecho_cache_entries{tier="answers"}"#).await.abs() < f64::EPSILON);
    assert!(is_hit(&vecho, "tiny", "a").await, "the vectors stay");
    assert_eq!(purge(&vecho, "?tier=memory&model=other").await, 2);
    assert!(is_hit(&vecho, "tiny", "a").await);
    fill().await;
    assert_eq!(purge(&vecho, "").await, 4);
    for model in ["tiny", "other"] {
        let answer = vecho.embed(ask(model, &["a", "b"])).await;
        assert_eq!(answer.header("x-vecho-cache"), Some("miss"), "no rendered answer outlives a purge");
    }
    for tier in ["disk", "redis"] {
        let query = format!("/api/performance/cache?tier={tier}&model=other");
        let narrow = call(&vecho, http::Method::DELETE, &query, "").await;
        assert_eq!((narrow.status, &narrow.json()["error"]["param"]), (400, &json!("tier")));
        let message = format!("A model is purged from all tiers: leave `tier={tier}` out.");
        assert_eq!(narrow.json()["error"]["message"], message);
    }
    let unknown = call(&vecho, http::Method::DELETE, "/api/performance/cache?tier=tape", "").await;
    assert_eq!((unknown.status, unknown.error().1), (400, json!("invalid_parameter")));
}

#[tokio::test]
async fn a_purge_of_cached_replies_of_one_model_keeps_those_of_others() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[]).await;
    for model in ["tiny", "other", "tiny", "other", "tiny", "other"] {
        vecho.embed(ask(model, &["a", "b"])).await;
    }
    for (query, gone) in [("model=tiny", 1), ("model=tiny", 0), ("model=other", 1)] {
        assert_eq!(purge(&vecho, &format!("?tier=answers&{query}")).await, gone, "{query}");
    }
}

#[tokio::test]
async fn a_purge_matches_the_answering_and_the_requested_model_name() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[]).await;
    for name in ["text-embedding-ada-002", "text-embedding-ada-002-v2"] {
        let answer = vecho.embed(ask("text-embedding-ada-002", &["a", "b"])).await;
        assert_eq!(answer.json()["model"], "text-embedding-ada-002-v2");
        assert_eq!(purge(&vecho, "?model=other").await, 0);
        assert_eq!(purge(&vecho, &format!("?model={name}")).await, 2, "{name}");
        assert!(!is_hit(&vecho, "text-embedding-ada-002", "a").await, "{name}");
    }
}

#[tokio::test]
async fn a_purge_of_one_model_keeps_running_fetches_of_others() {
    let stub = Stub::start();
    let vecho = Arc::new(Inside::start(&stub.base_url(), &[]).await);
    for (purged, is_kept) in [("other", true), ("tiny", false)] {
        stub.always(Behaviour::Gate);
        let asking = Arc::clone(&vecho);
        let under_way = tokio::spawn(async move { asking.embed(ask("tiny", &[purged])).await });
        stub.held(1).await;
        purge(&vecho, &format!("?model={purged}")).await;
        stub.always(Behaviour::Normal);
        stub.release_all();
        assert_eq!(under_way.await.expect("it ends").status, 200);
        assert_eq!(is_hit(&vecho, "tiny", purged).await, is_kept, "after a purge of {purged}");
    }
}

#[tokio::test]
async fn explain_returns_key_tier_and_age_or_the_bypass_reason() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[("cache.ttl", "1h")]).await;
    let explain = async |body: Value| {
        let url = format!("http://{}/api/performance/cache/explain", vecho.admin());
        vecho.client.post(&url, &body).await.json()
    };
    vecho.embed(ask("tiny", &["old"])).await;
    vecho.clock.advance_ms(1_800_000);
    vecho.embed(ask("tiny", &["young"])).await;
    vecho.clock.advance_ms(1_800_000);
    let calls = stub.calls().len();
    let explained = explain(ask("tiny", &["young", "old", "never"])).await;
    assert_eq!((&explained["cacheable"], &explained["model"]), (&json!(true), &json!("tiny")));
    assert_eq!(explained["upstream"], json!(format!("{}/embeddings", stub.base_url())));
    let inputs = explained["inputs"].as_array().expect("one entry an input");
    let states: Vec<_> = inputs
        .iter()
        .map(|input| (input["state"].as_str(), input["tier"].as_str(), input["age_seconds"].as_u64()))
        .collect();
    assert_eq!(states[0], (Some("fresh"), Some("memory"), Some(1_800)));
    assert_eq!((states[1].0, states[1].2, states[2].0), (Some("stale"), Some(3_600), Some("missing")));
    assert!(inputs.iter().all(|input| input["key"].as_str().is_some_and(|key| key.len() == 64)), "{explained}");
    assert_ne!(inputs[0]["key"], inputs[1]["key"]);
    let unknown = explain(json!({"model": "tiny", "input": "x", "late_chunking": true, "task": "t"})).await;
    assert_eq!((&unknown["reason"], &unknown["unknown_fields"]), (&json!("unknown_field"), &json!(["late_chunking"])));
    for (body, reason) in [
        (json!({"model": "tiny", "input": ["x", ""]}), "empty_input"),
        (json!({"model": "tiny", "input": 5}), "wrong_type"),
        (json!({"model": "tiny"}), "no_input"),
    ] {
        let refused = explain(body).await;
        assert_eq!((&refused["cacheable"], refused["reason"].as_str()), (&json!(false), Some(reason)), "{refused}");
    }
    assert_eq!(stub.calls().len(), calls, "explaining costs nothing");
}

/// Explain reports the same bypass reason as the reply to the request itself.
#[tokio::test]
async fn explain_agrees_with_the_reply_for_path_and_headers() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[]).await;
    let request = |url: &str, headers: &[(&str, &str)]| {
        let mut request = raw(http::Method::POST, url, ask("tiny", &["x"]).to_string());
        request.headers_mut().remove("content-type");
        for (name, value) in headers {
            let name = http::HeaderName::from_bytes(name.as_bytes()).expect("it is legal");
            request.headers_mut().insert(name, value.parse().expect("it is legal"));
        }
        request
    };
    let json = ("content-type", "application/json");
    for (headers, reason) in [
        (&[json][..], None),
        (&[("content-type", "application/json; charset=utf-8")], None),
        (&[], Some("content_type")),
        (&[("content-type", "application/x-www-form-urlencoded")], Some("content_type")),
        (&[json, ("content-encoding", "gzip")], Some("content_encoding")),
        (&[json, ("content-encoding", "identity")], None),
    ] {
        let url = format!("http://{}/api/performance/cache/explain", vecho.admin());
        let explained = vecho.client.send(request(&url, headers)).await.expect("it is answered").json();
        let answer = vecho.client.send(request(&vecho.embeddings_url(), headers)).await.expect("it is answered");
        let bypass = answer.headers.get("x-vecho-bypass-reason").map(|reason| reason.to_str().expect("it is text"));
        assert_eq!((explained["reason"].as_str(), bypass), (reason, reason), "{headers:?}: {explained}");
        assert_eq!(explained["cacheable"], json!(reason.is_none()));
    }
    for (path, reason) in [("/v1/chat/completions", Some("other_path")), ("/embeddings", None)] {
        let url = format!("http://{}/api/performance/cache/explain?path={path}", vecho.admin());
        let explained = vecho.client.send(request(&url, &[json])).await.expect("it is answered").json();
        assert_eq!(explained["reason"].as_str(), reason, "{path}: {explained}");
    }
}

#[tokio::test]
async fn the_configuration_route_shows_origins_but_no_secrets() {
    let stub = Stub::start();
    let environment = [("OPENAI_API_KEY", "sk-s3cret"), ("VECHO_ADMIN_TOKEN", "t0ken"), ("CACHE_TTL_SECONDS", "77")];
    let vecho = Vecho::start_with(&stub.base_url(), &environment);
    let mut request = raw(http::Method::GET, &vecho.ops_url("/api/config"), "");
    request.headers_mut().insert("x-vecho-admin-token", "t0ken".parse().expect("it is legal"));
    let shown = Client::new().send(request).await.expect("the ops port answers");
    let text = String::from_utf8_lossy(&shown.body).into_owned();
    assert_eq!(shown.status, 200);
    assert!(!text.contains("s3cret") && !text.contains("t0ken"), "{text}");
    for part in ["CACHE_TTL_SECONDS", "OPENAI_API_KEY", "--upstream", "default", "[secret]"] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
}

#[tokio::test]
async fn a_log_level_is_changed_while_running() {
    let stub = Stub::start();
    let vecho = Vecho::start(&stub);
    let put = async |body: &'static str| {
        let request = raw(http::Method::PUT, &vecho.ops_url("/api/log-level"), body);
        Client::new().send(request).await.expect("the ops port answers")
    };
    let url = format!("{}/embeddings", vecho.base_url());
    Client::new().post(&url, &ask("tiny", &["a"])).await;
    assert!(!vecho.log().contains("DEBUG"));
    let changed = put(r#"{"level":"debug"}"#).await;
    assert_eq!((changed.status, changed.json()), (200, json!({"level": "debug", "previous": "info"})));
    Client::new().post(&url, &ask("tiny", &["b"])).await;
    vecho.logged("DEBUG vecho::proxy").await;
    let bad = put(r#"{"level":"loud"}"#).await;
    assert_eq!((bad.status, bad.error().1), (400, json!("invalid_parameter")));
}

#[tokio::test]
async fn metrics_count_traffic() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[("retry.max_attempts", "1")]).await;
    vecho.embed(ask("tiny", &["a", "b"])).await;
    vecho.embed(ask("tiny", &["a", "b", "c"])).await;
    stub.next(Behaviour::Quota);
    vecho.embed(ask("tiny", &["d"])).await;
    vecho.client.get(&format!("http://{}/v1/models", vecho.public())).await;
    for (series, value) in [
        (r#"vecho_requests_total{outcome="miss",route="embeddings"}"#, 1.0),
        (r#"vecho_requests_total{outcome="partial",route="embeddings"}"#, 1.0),
        (r#"vecho_requests_total{outcome="refused",route="embeddings"}"#, 1.0),
        (r#"vecho_requests_total{outcome="forwarded",route="passthrough"}"#, 1.0),
        (r#"vecho_inputs_total{source="memory"}"#, 2.0),
        (r#"vecho_inputs_total{source="upstream"}"#, 3.0),
        (r#"vecho_upstream_calls_total{outcome="ok"}"#, 2.0),
        (r#"vecho_upstream_calls_total{outcome="refused"}"#, 1.0),
        (r#"vecho_tokens_total{kind="billed"}"#, 3.0),
        (r#"vecho_tokens_total{kind="saved"}"#, 2.0),
        (r#"vecho_cache_entries{tier="memory"}"#, 3.0),
        (r#"vecho_request_duration_seconds_count{outcome="miss",route="embeddings"}"#, 1.0),
        ("vecho_upstream_call_inputs_sum", 4.0),
        ("vecho_ready", 1.0),
    ] {
        let shown = metric(vecho.admin(), series).await;
        assert!((shown - value).abs() < f64::EPSILON, "{series} is {shown}, not {value}");
    }
}
