//! Tests of the controls: valid input, responses and errors.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use serde_json::json;

use super::fakes::{ThreadOfPurge, context};
use super::{assert_error, get, post, request, send};
use crate::admin::{AdminContext, CacheControl, EXPORT_PATH, IMPORT_PATH};

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
    assert_eq!(all, json!({ "purged_entries": 514, "model": null, "tier": null, "pending": [] }));
    let some = send(&context, purge("?model=BAAI%2Fbge-m3&tier=memory")).await.json();
    assert_eq!(some, json!({ "purged_entries": 7, "model": "BAAI/bge-m3", "tier": "memory", "pending": [] }));
    let lower = send(&context, purge("?tier=disk")).await.json();
    assert_eq!(lower, json!({ "purged_entries": 500, "model": null, "tier": "disk", "pending": [] }));
    assert_eq!(context.metrics.cache.purges.get(), 3);
}

#[tokio::test]
async fn a_purge_that_a_tier_has_yet_to_hear_of_does_not_pretend() {
    let purge = async |model: &str| {
        let path = format!("/api/performance/cache?model={model}");
        let answer = send(&context(), request(&Method::DELETE, &path, "")).await;
        let warning = answer.json()["warning"].as_str().unwrap_or_default().to_owned();
        (answer.status, answer.json()["pending"].clone(), warning)
    };
    let (status, pending, warning) = purge("unreachable").await;
    assert_eq!((status, pending), (StatusCode::ACCEPTED, json!(["disk", "redis"])));
    assert!(warning.contains("it may serve it again") && warning.contains("they never hear of it"), "{warning}");
    let (status, pending, warning) = purge("owed").await;
    assert_eq!((status, pending), (StatusCode::ACCEPTED, json!(["redis"])));
    assert!(warning.contains("other replicas may serve it") && !warning.contains("never hear"), "{warning}");
    assert_eq!(purge("reached").await, (StatusCode::OK, json!([]), String::new()));
}

#[tokio::test]
async fn a_purge_keeps_no_thread_of_the_runtime_busy() {
    let cache = Arc::new(ThreadOfPurge::default());
    let context = AdminContext { cache: Arc::clone(&cache) as Arc<dyn CacheControl>, ..context() };
    send(&context, request(&Method::DELETE, "/api/performance/cache", "")).await;
    let purged_on = cache.0.lock().expect("the lock must hold").expect("it was purged");
    assert_ne!(purged_on, std::thread::current().id());
}

#[tokio::test]
async fn a_cache_leaves_piece_by_piece_and_who_only_asks_gets_no_piece() {
    let exported = get(&context(), EXPORT_PATH).await;
    assert_eq!((exported.status, exported.text().as_str()), (StatusCode::OK, "onetwo"));
    assert_eq!(exported.headers[CONTENT_TYPE], "application/octet-stream");
    let asked = send(&context(), request(&Method::HEAD, EXPORT_PATH, "")).await;
    assert_eq!((asked.status, asked.text().as_str()), (StatusCode::OK, ""));
}

#[tokio::test]
async fn a_cache_comes_in_as_far_as_it_comes() {
    let counts = |imported, whole| json!({ "imported": imported, "known": 0, "expired": 0, "purged": 0, "lossy": 0, "damaged": 0, "unwritten": 0, "whole": whole });
    assert_eq!(post(&context(), IMPORT_PATH, "a file").await.json(), counts(6, true));
    let pieces = stream::iter([Ok(Frame::data(Bytes::from_static(b"half"))), Err(io::Error::other("gone"))]);
    let cut = request(&Method::POST, IMPORT_PATH, "").map(|_| StreamBody::new(pieces));
    assert_eq!(send(&context(), cut).await.json(), counts(4, false));
    assert_error(&post(&context(), IMPORT_PATH, "not a cache").await, StatusCode::BAD_REQUEST, "invalid_body");
}

#[tokio::test]
async fn a_misspelt_purge_lets_nothing_go() {
    let context = context();
    for query in ["?modle=x", "?model=", "?tier=tape"] {
        let answer = send(&context, request(&Method::DELETE, &format!("/api/performance/cache{query}"), "")).await;
        assert_error(&answer, StatusCode::BAD_REQUEST, "invalid_parameter");
    }
    assert_eq!(context.metrics.cache.purges.get(), 0);
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
