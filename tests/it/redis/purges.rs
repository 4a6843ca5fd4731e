//! Purges reach every replica.

use serde_json::json;

use super::{DOWN, comes_up, goes_down, purge, replica, sources, started, stored, stored_in_all};
use crate::disk::ground::Folder;
use crate::harness::redis::Redis;
use crate::harness::{Inside, Stub, eventually};

/// Time of the replicas' clocks, which a purge takes as its count.
const CLOCK: &str = "1700000000000";

/// Waits until a replica has no entry for this text, in memory or in lower tiers.
async fn forgets(replica: &Inside, model: &str, text: &str) {
    let url = format!("http://{}/api/performance/cache/explain", replica.admin());
    let is_missing = async || {
        let explained = replica.client.post(&url, &json!({"model": model, "input": text})).await.json();
        explained["inputs"][0]["state"] == "missing"
    };
    eventually(&format!("{text} is forgotten"), is_missing).await;
}

#[tokio::test]
async fn a_purge_on_one_replica_applies_to_memory_and_redis_of_all() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let (one, other) = (replica(&stub, &redis.url(), &[]).await, replica(&stub, &redis.url(), &[]).await);
    sources(&one, &["a"]).await;
    stored(&redis, 1).await;
    // The second request puts the reply into the reply cache.
    assert_eq!(sources(&other, &["a"]).await, "redis=1");
    assert_eq!(sources(&other, &["a"]).await, "memory=1");
    assert_eq!(sources(&other, &["a"]).await, "memory=1");
    purge(&one, "").await;
    forgets(&other, "tiny", "a").await;
    assert_eq!(sources(&other, &["a"]).await, "upstream=1");
    // A replica that starts later, without purge counts of its own, finds at most the entry that was fetched after
    // the purge.
    let late = replica(&stub, &redis.url(), &[]).await;
    assert!(["redis=1", "upstream=1"].contains(&&*sources(&late, &["a"]).await));
    assert_eq!(redis.cli(&["hget", "vecho:1:purges", "everything"]), CLOCK);
    assert_eq!(redis.cli(&["ttl", "vecho:1:purges"]), "-1", "purges never expire");
}

#[tokio::test]
async fn a_replica_started_after_a_purge_serves_no_purged_records() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let one = replica(&stub, &redis.url(), &[]).await;
    sources(&one, &["a"]).await;
    stored(&redis, 1).await;
    purge(&one, "").await;
    let late = replica(&stub, &redis.url(), &[]).await;
    assert_eq!(redis.records().len(), 2, "the old record is still there");
    assert_eq!(sources(&late, &["a"]).await, "upstream=1");
}

#[tokio::test]
async fn a_purge_of_one_model_keeps_the_entries_of_others_in_redis() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let (one, other) = (replica(&stub, &redis.url(), &[]).await, replica(&stub, &redis.url(), &[]).await);
    for model in ["tiny", "small"] {
        one.embed(json!({"model": model, "input": "a"})).await;
    }
    stored_in_all(&redis, 4).await;
    purge(&one, "?model=tiny").await;
    forgets(&other, "tiny", "a").await;
    assert_eq!(other.embed(json!({"model": "small", "input": "a"})).await.sources(), "redis=1");
    assert_eq!(redis.cli(&["hgetall", "vecho:1:purges"]), format!("model:tiny\n{CLOCK}"));
}

#[tokio::test]
async fn a_purge_made_during_an_outage_is_sent_after_it() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let settings = [("redis.timeout", "300ms")];
    let one = replica(&stub, &redis.url(), &settings).await;
    let other = replica(&stub, &redis.url(), &settings).await;
    sources(&one, &["a"]).await;
    stored(&redis, 1).await;
    assert_eq!(sources(&other, &["a"]).await, "redis=1");
    redis.freeze();
    goes_down(&one).await;
    goes_down(&other).await;
    purge(&one, "").await;
    assert_eq!(sources(&other, &["a"]).await, "memory=1", "it cannot know");
    redis.thaw();
    forgets(&other, "tiny", "a").await;
    comes_up(&one).await;
    forgets(&one, "tiny", "a").await;
    assert_eq!(sources(&one, &["a"]).await, "upstream=1");
}

#[tokio::test]
async fn purges_of_two_disconnected_replicas_both_count() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let settings = [("redis.timeout", "300ms")];
    let one = replica(&stub, &redis.url(), &settings).await;
    let other = replica(&stub, &redis.url(), &settings).await;
    redis.freeze();
    goes_down(&one).await;
    goes_down(&other).await;
    purge(&one, "").await;
    // Fetched between both purges, and queued with a purge count that the second purge must exceed.
    sources(&one, &["a"]).await;
    purge(&other, "").await;
    redis.thaw();
    comes_up(&one).await;
    comes_up(&other).await;
    forgets(&one, "tiny", "a").await;
    forgets(&other, "tiny", "a").await;
}

#[tokio::test]
async fn an_oversized_foreign_list_of_purges_takes_the_tier_down() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let one = replica(&stub, &redis.url(), &[]).await;
    let fill = "for n = 1, 192001 do redis.call('HSET', KEYS[1], 'model:' .. n, 1) end";
    redis.cli(&["eval", fill, "1", "vecho:1:purges"]);
    goes_down(&one).await;
    assert_eq!(sources(&one, &["a"]).await, "upstream=1");
    redis.cli(&["del", "vecho:1:purges"]);
    comes_up(&one).await;
}

/// Two replicas, each with its own folder, that are cut off from Redis.
struct Apart {
    redis: Redis,
    stub: Stub,
    folders: [Folder; 2],
}

impl Apart {
    async fn new() -> (Self, Inside, Inside) {
        let apart = Self { redis: Redis::start(), stub: Stub::start(), folders: [Folder::new(), Folder::new()] };
        let (one, other) = (apart.start(0).await, apart.start(1).await);
        comes_up(&one).await;
        comes_up(&other).await;
        (apart, one, other)
    }

    async fn freeze(&self, replicas: [&Inside; 2]) {
        self.redis.freeze();
        for replica in replicas {
            goes_down(replica).await;
        }
    }

    async fn start(&self, who: usize) -> Inside {
        let settings = [("redis.timeout", "300ms"), ("disk.path", self.folders[who].text())];
        started(&self.stub, &self.redis.url(), &settings).await
    }

    async fn restart(&self, replica: Inside, who: usize) -> Inside {
        replica.stop().await;
        self.start(who).await
    }
}

/// Waits until this number of entries is on disk, including the note that names the space's model.
async fn on_disk(replica: &Inside, entries: f64) {
    crate::harness::ops::metric_becomes(replica.admin(), r#"vecho_cache_entries{tier="disk"}"#, entries).await;
}

#[tokio::test]
async fn concurrent_purges_in_an_outage_both_count_after_restarts() {
    let (apart, one, other) = Apart::new().await;
    apart.freeze([&one, &other]).await;
    assert_eq!(purge(&one, "").await["pending"], json!(["redis"]));
    // Fetched between both purges, and on this disk with a purge count that the second purge must exceed.
    sources(&one, &["a"]).await;
    on_disk(&one, 2.0).await;
    purge(&other, "").await;
    let (one, other) = (apart.restart(one, 0).await, apart.restart(other, 1).await);
    assert_eq!(sources(&one, &["a"]).await, "disk=1", "it cannot know");
    apart.redis.thaw();
    comes_up(&one).await;
    comes_up(&other).await;
    forgets(&one, "tiny", "a").await;
}

#[tokio::test]
async fn an_unsent_purge_is_sent_once_by_the_next_process() {
    let (apart, one, other) = Apart::new().await;
    sources(&other, &["a"]).await;
    on_disk(&other, 2.0).await;
    apart.freeze([&one, &other]).await;
    let purged = purge(&one, "").await;
    let warning = purged["warning"].as_str().expect("it is text");
    assert!(
        warning.contains("other replicas may serve purged entries") && !warning.contains("never reaches them"),
        "{warning}"
    );
    let one = apart.restart(one, 0).await;
    apart.redis.thaw();
    comes_up(&one).await;
    comes_up(&other).await;
    forgets(&other, "tiny", "a").await;
    let count = || apart.redis.cli(&["hget", "vecho:1:purges", "everything"]);
    let told = count();
    // Purges that were sent are not sent again.
    let one = apart.restart(one, 0).await;
    comes_up(&one).await;
    assert_eq!(count(), told);
}

#[tokio::test]
async fn a_clearing_of_redis_in_an_outage_is_done_by_the_next_process() {
    let (apart, one, other) = Apart::new().await;
    sources(&other, &["a"]).await;
    stored(&apart.redis, 1).await;
    apart.freeze([&one, &other]).await;
    assert_eq!(purge(&one, "?tier=redis").await["pending"], json!(["redis"]));
    let one = apart.restart(one, 0).await;
    apart.redis.thaw();
    comes_up(&one).await;
    let cleared = async || apart.redis.cli(&["hget", "vecho:1:purges", "cleared"]) == "1";
    eventually("the next process clears it", cleared).await;
}

#[tokio::test]
async fn an_unsent_purge_that_would_be_lost_is_reported() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let one = replica(&stub, &redis.url(), &[("redis.timeout", "300ms"), ("disk.enabled", "false")]).await;
    assert_eq!(purge(&one, "").await["pending"], json!([]));
    redis.freeze();
    goes_down(&one).await;
    let purged = purge(&one, "?model=tiny").await;
    assert_eq!(purged["pending"], json!(["redis"]));
    assert!(purged["warning"].as_str().is_some_and(|warning| warning.contains("never reaches them")), "{purged}");
    assert_eq!(purge(&one, "?tier=redis").await["pending"], json!(["redis"]));
    redis.thaw();
    comes_up(&one).await;
    crate::harness::eventually("both are told", async || {
        one.metric(DOWN).await < 1.0 && redis.cli(&["hget", "vecho:1:purges", "cleared"]) == "1"
    })
    .await;
    assert_eq!(redis.cli(&["hget", "vecho:1:purges", "model:tiny"]), CLOCK);
}

#[tokio::test]
async fn lost_purges_are_restored_in_redis_without_purging_replicas() {
    let (mut redis, stub) = (Redis::start(), Stub::start());
    let (one, other) = (replica(&stub, &redis.url(), &[]).await, replica(&stub, &redis.url(), &[]).await);
    purge(&one, "").await;
    sources(&one, &["a"]).await;
    stored(&redis, 1).await;
    redis.kill();
    goes_down(&one).await;
    goes_down(&other).await;
    redis.go_on();
    comes_up(&one).await;
    comes_up(&other).await;
    assert_eq!(redis.cli(&["hget", "vecho:1:purges", "everything"]), CLOCK);
    assert_eq!(sources(&one, &["a"]).await, "memory=1");
}

#[tokio::test]
async fn clearing_the_redis_tier_affects_all_replicas_but_not_memory() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let (one, other) = (replica(&stub, &redis.url(), &[]).await, replica(&stub, &redis.url(), &[]).await);
    sources(&one, &["a"]).await;
    stored(&redis, 1).await;
    purge(&one, "?tier=redis").await;
    assert_eq!(sources(&one, &["a"]).await, "memory=1");
    forgets(&other, "tiny", "a").await;
    assert_eq!(sources(&other, &["a"]).await, "upstream=1");
    stored_in_all(&redis, 4).await;
    let late = replica(&stub, &redis.url(), &[]).await;
    assert_eq!(sources(&late, &["a"]).await, "redis=1", "what was stored after it is found");
}

#[tokio::test]
async fn entries_queued_before_redis_is_cleared_do_not_return() {
    let (mut redis, stub) = (Redis::absent(), Stub::start());
    let one = started(&stub, &redis.url(), &[]).await;
    goes_down(&one).await;
    sources(&one, &["before"]).await;
    purge(&one, "?tier=redis").await;
    sources(&one, &["after"]).await;
    redis.go_on();
    comes_up(&one).await;
    let late = replica(&stub, &redis.url(), &[]).await;
    let url = format!("http://{}/api/performance/cache/explain", late.admin());
    let state = async |text: &str| {
        let told = late.client.post(&url, &json!({"model": "tiny", "input": text})).await.json();
        told["inputs"][0]["state"].clone()
    };
    // The record of `after` was queued last, so it is written last.
    eventually("what came after is shared", async || state("after").await == "fresh").await;
    assert_eq!(state("before").await, "missing");
}
