//! Tests of the controls: valid input, responses and errors.

use std::io;
use std::sync::Arc;

use futures_util::stream;
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::{Value, json};

use super::client::{assert_error, get, post, request, send};
use super::parts::{MIB, StubTier, context, context_over, governor, key, lifecycle, remember};
use crate::admin::{AdminContext, EXPORT_PATH, IMPORT_PATH, handle};
use crate::cache::export::{Ending, ExportReader};
use crate::cache::{Durability, Tier};

#[tokio::test]
async fn memory_optimisation_defaults_to_four_fifths_of_the_limit() {
    let uri = "/api/performance/optimize-memory";
    // 90.1259 MiB and 79.5 MiB.
    let context = || AdminContext { governor: governor(94_503_857, 79 * MIB + MIB / 2), ..context() };
    for (body, target) in [("", 400), ("{}", 400), ("{\"target_memory_mb\":123}", 123)] {
        let done = post(&context(), uri, body).await.json();
        let expected = json!({
            "target_memory_mb": target, "current_memory_mb": 90.13, "optimization_needed": false,
            "actions_taken": [], "memory_saved_mb": 0.0,
        });
        assert_eq!(done, expected, "{body}");
    }
    let done = post(&context(), uri, "{\"target_memory_mb\":80}").await.json();
    let expected = json!({
        "target_memory_mb": 80, "current_memory_mb": 90.13, "optimization_needed": true,
        "actions_taken": ["gave back 10.6 MB of freed memory"], "memory_saved_mb": 10.63,
    });
    assert_eq!(done, expected);
    let context = context();
    for (body, code) in
        [("{\"target\":1}", "invalid_body"), ("[", "invalid_body"), ("{\"target_memory_mb\":0}", "invalid_parameter")]
    {
        assert_error(&post(&context, uri, body).await, StatusCode::BAD_REQUEST, code);
    }
}

#[tokio::test]
async fn purges_accept_a_filter_and_are_counted() {
    let context = context_over(vec![StubTier::new(Tier::Disk, true)]);
    for n in 0..10 {
        remember(&context, key(n), if n < 7 { "BAAI/bge-m3" } else { "other" }, 2);
    }
    let purge = |query: &str| request(&Method::DELETE, &format!("/api/performance/cache{query}"), "");
    let some = send(&context, purge("?model=BAAI%2Fbge-m3&tier=memory")).await.json();
    assert_eq!(some, json!({ "purged_entries": 7, "model": "BAAI/bge-m3", "tier": "memory", "pending": [] }));
    let lower = send(&context, purge("?tier=disk")).await.json();
    assert_eq!(lower, json!({ "purged_entries": 500, "model": null, "tier": "disk", "pending": [] }));
    let all = send(&context, purge("")).await.json();
    assert_eq!(all, json!({ "purged_entries": 3, "model": null, "tier": null, "pending": [] }));
    assert_eq!(context.metrics.cache.purges.get(), 3);
}

#[tokio::test]
async fn a_tier_that_is_not_configured_is_named_with_its_setting() {
    for (tier, cause) in [("redis", "redis.url"), ("disk", "disk.enabled"), ("tape", "memory")] {
        let uri = format!("/api/performance/cache?tier={tier}");
        let refused = send(&context(), request(&Method::DELETE, &uri, "")).await;
        assert_error(&refused, StatusCode::BAD_REQUEST, "invalid_parameter");
        let message = refused.json()["error"]["message"].to_string();
        assert!(message.contains(tier) && message.contains(cause), "{message}");
    }
}

#[tokio::test]
async fn a_purge_of_cached_replies_leaves_the_vectors_and_a_purge_of_memory_takes_both() {
    let purge = |query: &str| request(&Method::DELETE, &format!("/api/performance/cache{query}"), "");
    for (query, replies, records) in [
        ("?tier=answers&model=b", 1, 1),
        ("?tier=answers&model=a", 0, 1),
        ("?tier=answers", 0, 1),
        ("?tier=memory", 0, 0),
    ] {
        let context = context();
        remember(&context, key(0), "a", 2);
        send(&context, purge(query)).await.json();
        let entries = context.caches.stats().into_iter().map(|(tier, stats)| (tier, stats.entries));
        assert_eq!(entries.collect::<Vec<_>>(), [(Tier::Memory, records), (Tier::Answers, replies)], "{query}");
    }
}

#[tokio::test]
async fn a_purge_that_is_pending_in_a_tier_is_reported_with_a_warning() {
    let purge = async |is_disk_reachable, is_redis_reachable| {
        let (disk, redis) =
            (StubTier::new(Tier::Disk, is_disk_reachable), StubTier::new(Tier::Redis, is_redis_reachable));
        let context = context_over(vec![disk, redis]);
        let answer = send(&context, request(&Method::DELETE, "/api/performance/cache?model=m", "")).await;
        let warning = answer.json()["warning"].as_str().unwrap_or_default().to_owned();
        (answer.status, answer.json()["pending"].clone(), warning)
    };
    let (status, pending, warning) = purge(false, false).await;
    assert_eq!((status, pending), (StatusCode::ACCEPTED, json!(["disk", "redis"])));
    assert!(warning.contains("may be served again") && warning.contains("never reaches them"), "{warning}");
    let (status, pending, warning) = purge(true, false).await;
    assert_eq!((status, pending), (StatusCode::ACCEPTED, json!(["redis"])));
    assert!(
        warning.contains("other replicas may serve purged entries") && !warning.contains("never reaches"),
        "{warning}"
    );
    assert_eq!(purge(true, true).await, (StatusCode::OK, json!([]), String::new()));
}

#[tokio::test]
async fn forgotten_entries_that_are_still_on_a_medium_are_reported() {
    let forget = async |disk, redis| {
        let context = context_over(vec![StubTier::with(Tier::Disk, disk), StubTier::with(Tier::Redis, redis)]);
        let answer = send(&context, request(&Method::POST, "/api/performance/cache/forget", "{}")).await;
        let warning = answer.json()["warning"].as_str().unwrap_or_default().to_owned();
        (answer.status, answer.json()["pending"].clone(), answer.json()["unerased"].clone(), warning)
    };
    let (status, pending, unerased, warning) = forget(Durability::Unerased, Durability::ForGood).await;
    assert_eq!((status, pending, unerased), (StatusCode::ACCEPTED, json!([]), json!(["disk"])));
    assert!(warning.contains("Repeat the request") && !warning.contains("restart"), "{warning}");
    let (_, pending, unerased, warning) = forget(Durability::Unerased, Durability::Pending).await;
    assert_eq!((pending, unerased), (json!(["redis"]), json!(["disk"])));
    assert!(warning.contains("Repeat the request") && warning.contains("other replicas"), "{warning}");
    let (status, _, unerased, _) = forget(Durability::ForGood, Durability::ForGood).await;
    assert_eq!((status, unerased), (StatusCode::OK, Value::Null));
}

#[tokio::test]
async fn a_purge_does_not_block_the_runtime() {
    let disk = StubTier::new(Tier::Disk, true);
    let context = context_over(vec![Arc::<StubTier>::clone(&disk)]);
    send(&context, request(&Method::DELETE, "/api/performance/cache", "")).await;
    let noted_on = disk.noted_on.lock().expect("the lock must hold").clone();
    assert_eq!(noted_on.len(), 1);
    assert_ne!(noted_on[0], std::thread::current().id());
}

#[tokio::test]
async fn a_cache_leaves_piece_by_piece_and_a_head_request_gets_no_piece() {
    let context = context();
    (0..2).for_each(|n| remember(&context, key(n), "m", 20_000));
    let peer = "127.0.0.1:50000".parse().expect("the peer must be an address");
    let (head, mut body) = handle(&context, request(&Method::GET, EXPORT_PATH, ""), peer).await.into_parts();
    assert_eq!(head.status, StatusCode::OK);
    assert_eq!(head.headers[CONTENT_TYPE], "application/octet-stream");
    let (mut reader, mut pieces) = (ExportReader::default(), 0);
    while let Some(frame) = body.frame().await {
        pieces += 1;
        reader.feed(&frame.expect("the export is not cut").into_data().expect("a piece is data"));
        while reader.next_item().expect("it is an export").is_some() {}
    }
    reader.fed();
    assert!(reader.next_item().expect("it is an export").is_none());
    assert_eq!((reader.records(), reader.ending()), (2, Ending::Whole));
    assert!(pieces > 1, "a file larger than a piece has several");
    let asked = send(&context, request(&Method::HEAD, EXPORT_PATH, "")).await;
    assert_eq!((asked.status, asked.text().as_str()), (StatusCode::OK, ""));
}

#[tokio::test]
async fn a_truncated_import_keeps_the_records_that_arrived() {
    let counts = |imported, whole| json!({ "imported": imported, "known": 0, "expired": 0, "purged": 0, "lossy": 0, "damaged": 0, "unwritten": 0, "whole": whole });
    let source = context();
    (0..2).for_each(|n| remember(&source, key(n), "m", 2));
    let exported = get(&source, EXPORT_PATH).await.bytes();
    let whole = request(&Method::POST, IMPORT_PATH, exported.clone());
    assert_eq!(send(&context(), whole).await.json(), counts(2, true));
    // The end of the file takes 76 bytes, so this also cuts the second record.
    let first = exported.slice(..exported.len() - 100);
    let pieces = stream::iter([Ok(Frame::data(first)), Err(io::Error::other("gone"))]);
    let cut = request(&Method::POST, IMPORT_PATH, "").map(|_| StreamBody::new(pieces));
    assert_eq!(send(&context(), cut).await.json(), counts(1, false));
    assert_error(&post(&context(), IMPORT_PATH, "not a cache").await, StatusCode::BAD_REQUEST, "invalid_body");
}

#[tokio::test]
async fn an_import_into_a_process_that_stops_is_refused() {
    let context = AdminContext { lifecycle: Arc::new(lifecycle(true, true)), ..context() };
    let exported = get(&context, EXPORT_PATH).await.bytes();
    let refused = send(&context, request(&Method::POST, IMPORT_PATH, exported)).await;
    assert_error(&refused, StatusCode::BAD_REQUEST, "invalid_body");
    assert!(refused.text().contains("the process is stopping"), "{}", refused.text());
}

#[tokio::test]
async fn a_purge_with_an_invalid_query_is_refused() {
    let context = context();
    for query in ["?modle=x", "?model=", "?tier=tape", "?tier=redis", "?tier=disk&model=m"] {
        let answer = send(&context, request(&Method::DELETE, &format!("/api/performance/cache{query}"), "")).await;
        assert_error(&answer, StatusCode::BAD_REQUEST, "invalid_parameter");
    }
    assert_eq!(context.metrics.cache.purges.get(), 0);
}

#[tokio::test]
async fn explain_receives_path_headers_and_body() {
    let uri = "/api/performance/cache/explain";
    let plain = post(&context(), uri, "12345").await.json();
    assert_eq!(plain, json!({ "path": "/v1/embeddings", "bytes": 5, "namespace": false }));
    let mut request = request(&Method::POST, &format!("{uri}?path=/openai/x"), "1");
    request.headers_mut().insert("x-vecho-namespace", "a".parse().expect("a header value"));
    let other = send(&context(), request).await.json();
    assert_eq!(other, json!({ "path": "/openai/x", "bytes": 1, "namespace": true }));
}

#[tokio::test]
async fn the_log_level_may_be_an_object_or_a_plain_word() {
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
async fn the_effective_configuration_is_returned() {
    let context = context();
    let shown = get(&context, "/api/config").await.json();
    assert_eq!(shown, context.live.load().effective.to_json());
    assert_eq!(shown["listen"]["value"], "127.0.0.1:7861");
}
