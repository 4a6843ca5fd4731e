//! The expiry times of entries hold across restarts.

use serde_json::{Value, json};

use super::ground::Folder;
use crate::harness::client::Answer;
use crate::harness::{Inside, Stub};

const HOUR_MS: u64 = 3_600_000;

fn ask() -> Value {
    json!({"model": "tiny", "input": ["x", "y"]})
}

/// Starts one vecho after the other on the same folder, each with a later clock than the one before.
async fn start(stub: &Stub, folder: &Folder, later_ms: u64) -> Inside {
    let pairs = [
        ("disk.path", folder.text()),
        ("cache.ttl", "1h"),
        ("cache.stale_for", "1h"),
        ("retry.max_attempts", "1"),
        ("breaker.failures", "0"),
        ("fallback.mode", "stale"),
    ];
    let inside = Inside::start(&stub.base_url(), &pairs).await;
    inside.clock.advance_ms(later_ms);
    inside
}

async fn filled(stub: &Stub, folder: &Folder) {
    let inside = start(stub, folder, 0).await;
    assert_eq!(inside.embed(ask()).await.sources(), "upstream=2");
    assert_eq!(inside.stop().await.unwritten, 0);
}

fn told(answer: &Answer) -> (u16, &str, &str) {
    (answer.status, answer.cache(), answer.sources())
}

#[tokio::test]
async fn an_entry_on_disk_is_fresh_then_stale_then_gone() {
    let (stub, folder) = (Stub::start(), Folder::new());
    filled(&stub, &folder).await;
    stub.down().await;
    let inside = start(&stub, &folder, HOUR_MS - 1).await;
    assert_eq!(told(&inside.embed(ask()).await), (200, "hit", "disk=2"));
    inside.stop().await;
    let inside = start(&stub, &folder, HOUR_MS + 1).await;
    assert_eq!(told(&inside.embed(ask()).await), (200, "stale", "stale=2"), "while the upstream is down");
    inside.stop().await;
    let inside = start(&stub, &folder, 2 * HOUR_MS + 1).await;
    assert_eq!(inside.embed(ask()).await.status, 502);
    inside.stop().await;
    stub.up().await;
    let inside = start(&stub, &folder, HOUR_MS + 1).await;
    assert_eq!(inside.embed(ask()).await.sources(), "upstream=2", "while the upstream is up");
    inside.stop().await;
}

#[tokio::test]
async fn only_if_cached_and_max_age_apply_to_entries_on_disk() {
    let (stub, folder) = (Stub::start(), Folder::new());
    filled(&stub, &folder).await;
    let inside = start(&stub, &folder, 10_000).await;
    let cached = [("cache-control", "only-if-cached")];
    let other = inside.embed_with(&cached, json!({"model": "tiny", "input": ["x", "z"]})).await;
    assert_eq!(other.status, 504, "not all of it is there");
    assert_eq!(told(&inside.embed_with(&cached, ask()).await).0, 200);
    let young = [("cache-control", "max-age=5")];
    assert_eq!(inside.embed_with(&young, ask()).await.sources(), "upstream=2", "it is ten seconds old");
    inside.stop().await;
}

#[tokio::test]
async fn the_first_only_if_cached_request_is_served_from_disk() {
    let (stub, folder) = (Stub::start(), Folder::new());
    filled(&stub, &folder).await;
    let inside = start(&stub, &folder, 0).await;
    let answer = inside.embed_with(&[("cache-control", "only-if-cached")], ask()).await;
    assert_eq!(told(&answer), (200, "hit", "disk=2"));
    assert_eq!(stub.embedding_calls().len(), 1);
    inside.stop().await;
}
