//! The Redis tier, tested with real servers.

mod auto_leases;
mod bounds;
mod cluster;
mod counts;
mod fields;
mod forgetting;
mod leases;
mod one_fetch;
mod outages;
mod purges;
mod secure;
mod shared;
mod swapped;
mod targets;
mod watching;

use serde_json::Value;

use crate::harness::front::texts_of;
use crate::harness::ops::metric_becomes;
use crate::harness::redis::Redis;
use crate::harness::{Inside, Stub, eventually};

/// Gauge: 1 if the tier is down.
const DOWN: &str = r#"vecho_cache_tier_down{tier="redis"}"#;
/// Counter of lookups in the tier.
const LOOKUPS: &str = r#"vecho_cache_lookup_duration_seconds_count{tier="redis"}"#;
/// Counter of records that were not written.
const DROPPED: &str = r#"vecho_cache_dropped_total{tier="redis"}"#;

/// Long timeouts, for tests that are not about timeouts.
const SETTINGS: [(&str, &str); 5] = [
    ("redis.timeout", "5s"),
    ("redis.connect_timeout", "5s"),
    ("retry.max_attempts", "1"),
    ("breaker.failures", "0"),
    ("fallback.mode", "error"),
];

/// Returns the environment of a process that logs in as `app` and has no disk.
fn login(url: &str) -> [(&str, &str); 5] {
    [
        ("VECHO_REDIS_URL", url),
        ("VECHO_REDIS_USERNAME", "app"),
        ("VECHO_REDIS_PASSWORD", "right"),
        ("VECHO_REDIS_TIMEOUT", "5s"),
        ("VECHO_DISK_ENABLED", "false"),
    ]
}

/// Starts a replica and does not wait for its Redis.
async fn started(stub: &Stub, url: &str, settings: &[(&str, &str)]) -> Inside {
    let is_set = |key: &str| settings.iter().any(|(set, _)| *set == key);
    let mut pairs = vec![("redis.url", url)];
    pairs.extend(SETTINGS.iter().filter(|(key, _)| !is_set(key)));
    pairs.extend(settings);
    Inside::start(&stub.base_url(), &pairs).await
}

/// Starts a replica and waits until its Redis answers.
async fn replica(stub: &Stub, url: &str, settings: &[(&str, &str)]) -> Inside {
    let replica = started(stub, url, settings).await;
    comes_up(&replica).await;
    replica
}

async fn comes_up(replica: &Inside) {
    metric_becomes(replica.admin(), DOWN, 0.0).await;
}

async fn goes_down(replica: &Inside) {
    metric_becomes(replica.admin(), DOWN, 1.0).await;
}

/// Returns the sources of an answer for these texts.
async fn sources(replica: &Inside, texts: &[&str]) -> String {
    let answer = replica.embed(texts_of(texts)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.sources().to_owned()
}

/// Waits until this number of records of one space is stored, plus the note that names the space's model.
async fn stored(redis: &Redis, records: usize) {
    stored_in_all(redis, records + 1).await;
}

/// Like [`stored`], with all notes counted as records.
async fn stored_in_all(redis: &Redis, records: usize) {
    eventually(&format!("{records} records in Redis"), async || redis.records().len() == records).await;
}

/// Returns the Redis key of a text's record before the first purge.
async fn name_of(replica: &Inside, text: &str) -> String {
    let url = format!("http://{}/api/performance/cache/explain", replica.admin());
    let explained = replica.client.post(&url, &texts_of(&[text])).await.json();
    format!("vecho:1:0:{{{}}}", explained["inputs"][0]["key"].as_str().expect("a key is a text"))
}

async fn purge(replica: &Inside, query: &str) -> Value {
    let url = format!("http://{}/api/performance/cache{query}", replica.admin());
    let request = crate::harness::client::raw(http::Method::DELETE, &url, "");
    let answer = replica.client.send(request).await.expect("the answer must arrive");
    let purged = answer.json();
    let is_pending = purged["pending"] != serde_json::json!([]);
    assert_eq!(answer.status, if is_pending { 202 } else { 200 }, "{answer:?}");
    purged
}
