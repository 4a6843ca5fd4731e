//! Entries that replicas share.

use std::time::Duration;

use serde_json::json;

use super::{DROPPED, comes_up, name_of, purge, replica, sources, started, stored, stored_in_all};
use crate::harness::front::{TINY, texts_of};
use crate::harness::proxy::Proxy;
use crate::harness::redis::Redis;
use crate::harness::{Behaviour, Inside, Stub, eventually};

async fn explained(replica: &Inside, texts: &[&str]) -> serde_json::Value {
    let url = format!("http://{}/api/performance/cache/explain", replica.admin());
    replica.client.post(&url, &texts_of(texts)).await.json()["inputs"].clone()
}

#[tokio::test]
async fn entries_fetched_by_one_replica_are_hits_on_another() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let (one, other) = (replica(&stub, &redis.url(), &[]).await, replica(&stub, &redis.url(), &[]).await);
    let texts = ["a", "b", "c"];
    let fetched = one.embed(texts_of(&texts)).await;
    assert_eq!(fetched.sources(), "upstream=3");
    stored(&redis, 3).await;
    assert_eq!(explained(&other, &["b"]).await[0]["tier"], "redis");
    let found = other.embed(texts_of(&texts)).await;
    assert_eq!((found.cache(), found.sources()), ("hit", "redis=3"));
    assert_eq!(found.vectors(), fetched.vectors(), "bit for bit");
    assert_eq!(sources(&other, &texts).await, "memory=3", "what was found moves up");
    assert_eq!(stub.embedding_calls().len(), 1);
    let stats = other.client.get(&format!("http://{}/api/performance/cache/stats", other.admin())).await.json();
    let tier = &stats["tiers"]["redis"];
    // The first request also looks up the note that names the space's model.
    assert_eq!((&tier["hits"], &tier["up"]), (&json!(4 + 2), &json!(true)), "{tier}");
    assert_eq!(stats["inputs"]["hits"], 6, "{stats}");
}

#[tokio::test]
async fn a_lossless_replica_serves_no_lossy_records() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let lossy = replica(&stub, &redis.url(), &[("cache.codec", "int8")]).await;
    let exact = replica(&stub, &redis.url(), &[]).await;
    sources(&lossy, &["a"]).await;
    stored(&redis, 1).await;
    let answer = exact.embed(texts_of(&["a"])).await;
    assert_eq!((answer.sources(), answer.vectors()), ("upstream=1", crate::harness::front::tiny(&["a"])));
    let late = replica(&stub, &redis.url(), &[("cache.codec", "int8")]).await;
    eventually("the exact one replaces it", async || explained(&late, &["a"]).await[0]["tier"] == "redis").await;
    assert_eq!(sources(&late, &["a"]).await, "redis=1", "what is better than asked for is served");
}

#[tokio::test]
async fn an_input_stored_by_an_unaccepted_credential_meanwhile_is_not_refetched() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let replica = replica(&stub, &redis.url(), &[("cache.scope", "shared"), ("redis.timeout", "1s")]).await;
    let ask = async |key: &str, text: &str| {
        let headers = [("authorization", format!("Bearer {key}"))];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        replica.embed_with(&headers, texts_of(&[text])).await.sources().to_owned()
    };
    assert_eq!(ask("known", "other").await, "upstream=1", "from now on it is vouched for");
    redis.freeze();
    // Between the first request's lookup in memory and its claim, a request with a credential that is not accepted
    // yet fetches the same input.
    let (slow, quick) = tokio::join!(ask("known", "a"), ask("unknown", "a"));
    assert_eq!((slow.as_str(), quick.as_str()), ("memory=1", "upstream=1"));
    redis.thaw();
}

#[tokio::test]
async fn a_request_reads_each_of_its_inputs_once() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let replica = replica(&stub, &redis.url(), &[("redis.lease", "0s")]).await;
    let texts: Vec<String> = (0..100).map(|n| format!("text {n}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let (asked, whole) = (redis.calls("getrange"), redis.calls("get") + redis.calls("mget"));
    sources(&replica, &texts).await;
    let whole_after = redis.calls("get") + redis.calls("mget");
    // One additional call may be a probe of the connection to Redis.
    let asked = redis.calls("getrange") - asked;
    assert!((100..=101).contains(&asked) && whole_after == whole, "{asked} asked, {} whole", whole_after - whole);
    stored(&redis, 100).await;
}

#[tokio::test]
async fn records_are_named_after_prefix_and_key_and_expire_in_redis_itself() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let settings = [("redis.key_prefix", "app:"), ("cache.ttl", "100s"), ("cache.stale_for", "1000s")];
    let replica = replica(&stub, &redis.url(), &settings).await;
    sources(&replica, &["a"]).await;
    stored(&redis, 1).await;
    let key = explained(&replica, &["a"]).await[0]["key"].as_str().expect("a key is a text").to_owned();
    let name = format!("app:1:0:{{{key}}}");
    assert!(redis.records().contains(&name), "{:?}", redis.records());
    let left_ms: u64 = redis.cli(&["pttl", &name]).parse().expect("a time is a number");
    assert!((1_000_000..=1_100_000).contains(&left_ms), "fresh and stale together, not {left_ms}");
}

#[tokio::test]
async fn replicas_with_different_prefixes_share_nothing() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let one = replica(&stub, &redis.url(), &[("redis.key_prefix", "one:")]).await;
    let other = replica(&stub, &redis.url(), &[("redis.key_prefix", "other:")]).await;
    sources(&one, &["a"]).await;
    stored(&redis, 1).await;
    assert_eq!(sources(&other, &["a"]).await, "upstream=1");
    purge(&one, "").await;
    stored_in_all(&redis, 4).await;
    assert_eq!(sources(&other, &["a"]).await, "memory=1");
}

#[tokio::test]
async fn foreign_values_are_misses_and_do_not_affect_other_records() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let one = replica(&stub, &redis.url(), &[]).await;
    sources(&one, &["a", "b", "c"]).await;
    stored(&redis, 3).await;
    let records = [name_of(&one, "a").await, name_of(&one, "b").await];
    redis.cli(&["del", &records[0]]);
    redis.cli(&["rpush", &records[0], "a list"]);
    redis.cli(&["set", &records[1], "an older or newer version's record"]);
    let other = replica(&stub, &redis.url(), &[]).await;
    assert_eq!(sources(&other, &["a", "b", "c"]).await, "redis=1, upstream=2");
    comes_up(&other).await;
    crate::harness::eventually("both are replaced", async || {
        records.iter().all(|record| redis.cli(&["strlen", record]).parse::<usize>().is_ok_and(|bytes| bytes > 50))
    })
    .await;
}

#[tokio::test]
async fn an_expired_record_is_served_stale_during_an_outage() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let settings = [("cache.ttl", "10s"), ("cache.stale_for", "1h"), ("fallback.mode", "stale")];
    let one = replica(&stub, &redis.url(), &settings).await;
    sources(&one, &["a"]).await;
    stored(&redis, 1).await;
    let other = replica(&stub, &redis.url(), &settings).await;
    other.clock.advance_ms(11_000);
    stub.down().await;
    let answer = other.embed(texts_of(&["a"])).await;
    assert_eq!((answer.status, answer.cache(), answer.sources()), (200, "stale", "stale=1"));
}

#[tokio::test]
async fn no_store_answers_are_not_sent_to_redis() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let replica = replica(&stub, &redis.url(), &[]).await;
    replica.embed_with(&[("cache-control", "no-store")], texts_of(&["secret"])).await;
    sources(&replica, &["other"]).await;
    stored(&redis, 1).await;
}

#[tokio::test]
async fn shutdown_writes_entries_queued_for_redis() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let environment = [("VECHO_REDIS_URL", &*redis.url()), ("VECHO_DISK_ENABLED", "false")];
    let vecho = crate::harness::Vecho::start_with(&stub.base_url(), &environment);
    vecho.logged("its tier is up").await;
    let texts: Vec<String> = (0..200).map(|n| format!("text {n}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let answer =
        crate::harness::Client::new().post(&format!("{}/embeddings", vecho.base_url()), &texts_of(&texts)).await;
    assert_eq!(answer.status, 200);
    let ended = vecho.stop();
    assert!(ended.log.contains("nothing was cut"), "{}", ended.log);
    assert_eq!(redis.records().len(), 201, "one of them notes which model answered");
}

#[tokio::test]
async fn startup_does_not_wait_for_redis() {
    let (mut redis, stub) = (Redis::absent(), Stub::start());
    let replica = started(&stub, &redis.url(), &[]).await;
    assert_eq!(sources(&replica, &["a"]).await, "upstream=1");
    redis.go_on();
    comes_up(&replica).await;
    // Entries that were fetched in the meantime were queued for Redis.
    stored(&redis, 1).await;
    tokio::time::timeout(Duration::from_secs(10), sources(&replica, &["b"])).await.expect("it answers");
}

#[tokio::test]
async fn an_import_is_limited_to_the_write_rate_of_redis() {
    const MODEL: &str = "text-embedding-3-small";
    let (redis, stub) = (Redis::start(), Stub::start());
    let from = Inside::start(&stub.base_url(), &[]).await;
    let texts: Vec<String> = (0..800).map(|n| format!("text {n}")).collect();
    assert_eq!(from.embed(json!({"model": MODEL, "input": texts})).await.sources(), "upstream=800");
    let file = from.client.get(&format!("http://{}/api/performance/cache/export", from.admin())).await.body;
    assert!(file.len() > 2 << 20, "it is more than may wait: {}", file.len());
    let proxy = Proxy::start(redis.port()).await;
    let to = replica(&stub, &format!("redis://{}", proxy.addr), &[("redis.queue_mb", "1")]).await;
    proxy.delay(Duration::from_millis(50));
    let url = format!("http://{}/api/performance/cache/import", to.admin());
    let request = crate::harness::client::raw(http::Method::POST, &url, file);
    let imported = to.client.send(request).await.expect("the answer must arrive").json();
    assert_eq!(imported["imported"], 800, "{imported}");
    assert!(to.metric(DROPPED).await < 1.0, "nothing is dropped");
    assert_eq!(redis.records().len(), 800);
}

#[tokio::test]
async fn a_refresh_by_another_replica_replaces_cached_replies_once_found() {
    let (stub, redis) = (Stub::start(), Redis::start());
    let (one, other) = (replica(&stub, &redis.url(), &[]).await, replica(&stub, &redis.url(), &[]).await);
    let old = one.embed(texts_of(&["a"])).await.vectors();
    stored(&redis, 1).await;
    for _ in 0..3 {
        assert_eq!(other.embed(texts_of(&["a"])).await.vectors(), old);
    }
    let observer = replica(&stub, &redis.url(), &[]).await;
    for replica in [&one, &other, &observer] {
        replica.clock.advance_ms(20_000);
    }
    // A model with the same name and different vectors.
    let name = Behaviour::ModelName(TINY.to_owned());
    stub.next(Behaviour::All(vec![Behaviour::OtherModel("other".to_owned()), name]));
    let new = one.embed_with(&[("cache-control", "no-cache")], texts_of(&["a"])).await.vectors();
    assert_ne!(new, old);
    eventually("it is stored", async || explained(&observer, &["a"]).await[0]["age_seconds"] == 0).await;
    let young = other.embed_with(&[("cache-control", "max-age=10")], texts_of(&["a"])).await;
    assert_eq!((young.sources(), young.vectors()), ("redis=1", new.clone()));
    assert_eq!(other.embed(texts_of(&["a"])).await.vectors(), new);
}
