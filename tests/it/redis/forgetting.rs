//! Forgotten inputs leave Redis and every replica.

use serde_json::json;

use super::{comes_up, goes_down, name_of, replica, sources, started, stored};
use crate::disk::ground::Folder;
use crate::forgetting::{forget, forgotten};
use crate::harness::front::texts_of;
use crate::harness::ops::metric_becomes;
use crate::harness::redis::Redis;
use crate::harness::{Inside, Stub, eventually};

async fn is_gone(replica: &Inside, text: &str) {
    let url = format!("http://{}/api/performance/cache/explain", replica.admin());
    let is_missing = async || {
        let explained = replica.client.post(&url, &texts_of(&[text])).await.json();
        explained["inputs"][0]["state"] == "missing"
    };
    eventually(&format!("{text} is forgotten"), is_missing).await;
}

#[tokio::test]
async fn a_forget_on_one_replica_applies_to_memory_disk_and_redis_of_all() {
    let (redis, stub, folder) = (Redis::start(), Stub::start(), Folder::new());
    let one = replica(&stub, &redis.url(), &[]).await;
    let other = replica(&stub, &redis.url(), &[("disk.path", folder.text())]).await;
    sources(&one, &["a", "b"]).await;
    stored(&redis, 2).await;
    // The third request puts the reply of the other replica into its reply cache.
    for from in ["redis=2", "memory=2", "memory=2"] {
        assert_eq!(sources(&other, &["a", "b"]).await, from);
    }
    metric_becomes(other.admin(), r#"vecho_cache_entries{tier="disk"}"#, 2.0).await;
    let name = name_of(&one, "a").await;
    assert_eq!(redis.cli(&["exists", &name]), "1");
    let answer = forgotten(&one, &[], &texts_of(&["a"])).await;
    assert_eq!(answer["removed_entries"], json!({"memory": 1, "answers": 0, "redis": 1}));
    assert_eq!(redis.cli(&["exists", &name]), "0");
    is_gone(&other, "a").await;
    assert_eq!(sources(&other, &["a", "b"]).await, "memory=1, upstream=1");
    let url = redis.url();
    other.stop().await;
    let other = replica(&stub, &url, &[("disk.path", folder.text())]).await;
    assert_eq!(sources(&other, &["b"]).await, "disk=1", "its neighbour stays on disk");
}

#[tokio::test]
async fn a_replica_that_was_away_drops_forgotten_entries_when_it_returns() {
    let (redis, stub, folder) = (Redis::start(), Stub::start(), Folder::new());
    let one = replica(&stub, &redis.url(), &[]).await;
    let settings = [("disk.path", folder.text())];
    let other = replica(&stub, &redis.url(), &settings).await;
    sources(&other, &["a", "b"]).await;
    stored(&redis, 2).await;
    metric_becomes(other.admin(), r#"vecho_cache_entries{tier="disk"}"#, 3.0).await;
    other.stop().await;
    forgotten(&one, &[], &texts_of(&["a"])).await;
    let other = replica(&stub, &redis.url(), &settings).await;
    is_gone(&other, "a").await;
    assert_eq!(sources(&other, &["a", "b"]).await, "disk=1, upstream=1");
    assert!(["memory=1", "redis=1"].contains(&&*sources(&one, &["a"]).await), "what was fetched since is shared");
}

#[tokio::test]
async fn a_record_that_was_written_before_a_replica_knew_of_the_forget_is_never_served() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let one = replica(&stub, &redis.url(), &[]).await;
    sources(&one, &["a"]).await;
    stored(&redis, 1).await;
    let name = name_of(&one, "a").await;
    let copy = format!("{name}copy");
    redis.cli(&["copy", &name, &copy]);
    forgotten(&one, &[], &texts_of(&["a"])).await;
    // A late write of another replica puts the old record back.
    redis.cli(&["copy", &copy, &name]);
    let late = replica(&stub, &redis.url(), &[]).await;
    for replica in [&one, &late] {
        is_gone(replica, "a").await;
    }
    assert_eq!(sources(&late, &["a"]).await, "upstream=1");
    eventually("the new record is shared", async || redis.cli(&["strlen", &name]) != redis.cli(&["strlen", &copy]))
        .await;
    is_gone_in_memory(&one).await;
    assert_eq!(sources(&one, &["a"]).await, "redis=1");
}

async fn is_gone_in_memory(replica: &Inside) {
    let url = format!("http://{}/api/performance/cache?tier=memory", replica.admin());
    let purge = crate::harness::client::raw(http::Method::DELETE, &url, "");
    assert_eq!(replica.client.send(purge).await.expect("it is answered").status, 200);
}

#[tokio::test]
async fn a_forget_made_during_an_outage_is_sent_after_it_also_by_the_next_process() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let folder = Folder::new();
    let settings = [("redis.timeout", "300ms"), ("disk.path", folder.text())];
    let one = replica(&stub, &redis.url(), &settings).await;
    let other = replica(&stub, &redis.url(), &[("redis.timeout", "300ms")]).await;
    sources(&other, &["a", "b"]).await;
    stored(&redis, 2).await;
    let name = name_of(&one, "a").await;
    redis.freeze();
    goes_down(&one).await;
    goes_down(&other).await;
    let answer = forget(one.admin(), &[], &texts_of(&["a"])).await;
    assert_eq!((answer.status, &answer.json()["pending"]), (202, &json!(["redis"])), "{answer:?}");
    assert!(answer.json()["warning"].as_str().is_some_and(|text| text.contains("other replicas")), "{answer:?}");
    one.stop().await;
    let one = started(&stub, &redis.url(), &settings).await;
    redis.thaw();
    comes_up(&one).await;
    comes_up(&other).await;
    is_gone(&other, "a").await;
    eventually("the record leaves Redis", async || redis.cli(&["exists", &name]) == "0").await;
    assert_eq!(sources(&other, &["a", "b"]).await, "memory=1, upstream=1");
}

#[tokio::test]
async fn counts_of_forgotten_keys_leave_redis_once_their_entries_would_have_expired() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let one = replica(&stub, &redis.url(), &[("cache.ttl", "1h"), ("cache.stale_for", "1h")]).await;
    forgotten(&one, &[], &texts_of(&["a", "b"])).await;
    assert_eq!(redis.cli(&["hlen", "vecho:1:purges"]), "2");
    one.clock.advance_ms(48 * 3_600_000);
    eventually("the counts are dropped", async || redis.cli(&["exists", "vecho:1:purges"]) == "0").await;
}

#[tokio::test]
async fn a_record_that_waits_for_redis_is_not_written_after_its_input_was_forgotten() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let one = replica(&stub, &redis.url(), &[("redis.timeout", "300ms")]).await;
    let names = [name_of(&one, "a").await, name_of(&one, "b").await];
    redis.freeze();
    goes_down(&one).await;
    sources(&one, &["a"]).await;
    sources(&one, &["b"]).await;
    let answer = forget(one.admin(), &[], &texts_of(&["a"])).await;
    assert_eq!((answer.status, &answer.json()["pending"]), (202, &json!(["redis"])), "{answer:?}");
    redis.thaw();
    comes_up(&one).await;
    // Entries are written in their order, so the forgotten one would be there before this one.
    eventually("the other record is written", async || redis.cli(&["exists", &names[1]]) == "1").await;
    assert_eq!(redis.cli(&["exists", &names[0]]), "0");
}

#[tokio::test]
async fn replicas_accept_the_forgets_of_many_that_were_separated() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let fill =
        "for n = 1, 30000 do redis.call('hset', KEYS[1], 'input:' .. string.format('%064x', n), '1800000000000') end";
    redis.cli(&["eval", fill, "1", "vecho:1:purges"]);
    let one = replica(&stub, &redis.url(), &[]).await;
    assert_eq!(sources(&one, &["a"]).await, "upstream=1");
    let refused = forget(one.admin(), &[], &texts_of(&["a"])).await;
    assert_eq!((refused.status, refused.error().1), (409, json!("too_many_forgotten")));
}
