//! Leases of the default length: renewal, refusals, and callers that leave.

use std::time::{Duration, Instant};

use super::{login, replica, sources, stored};
use crate::harness::front::texts_of;
use crate::harness::redis::Redis;
use crate::harness::{Behaviour, Client, Inside, Stub, Vecho, eventually};

async fn replicas(stub: &Stub, redis: &Redis) -> [Inside; 3] {
    let one = async || replica(stub, &redis.url(), &[]).await;
    [one().await, one().await, one().await]
}

fn lease(redis: &Redis) -> String {
    redis.cli(&["--scan", "--pattern", "*:lease:*"])
}

/// Returns the time until a lease ends, in milliseconds.
fn left_ms(redis: &Redis, lease: &str) -> i64 {
    redis.cli(&["pttl", lease]).parse().expect("a time is a number")
}

fn refusal() -> Behaviour {
    let body = r#"{"error":{"message":"no","type":"invalid_request_error","param":null,"code":null}}"#;
    Behaviour::All(vec![Behaviour::Gate, Behaviour::Status { code: 400, headers: vec![], body: body.to_owned() }])
}

#[tokio::test]
async fn a_lease_is_renewed_while_its_call_lasts() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let [one, other, _] = replicas(&stub, &redis).await;
    stub.next(Behaviour::Gate);
    let fetching = sources(&one, &["a"]);
    let waiting = async {
        stub.held(1).await;
        sources(&other, &["a"]).await
    };
    let renewing = async {
        stub.held(1).await;
        let lease = lease(&redis);
        let mut before_ms = left_ms(&redis, &lease);
        assert!((1..=4_000).contains(&before_ms), "{before_ms}");
        for _ in 0..2 {
            let is_renewed = async || {
                let now_ms = left_ms(&redis, &lease);
                assert!(now_ms > 0, "it never ends: {now_ms}");
                now_ms > before_ms
            };
            eventually("it lasts longer than before", is_renewed).await;
            before_ms = left_ms(&redis, &lease);
            eventually("time passes", async || left_ms(&redis, &lease) < before_ms - 500).await;
            before_ms = left_ms(&redis, &lease);
        }
        stub.release_all();
    };
    let answers = tokio::join!(fetching, waiting, renewing);
    assert_eq!((&*answers.0, &*answers.1), ("upstream=1", "redis=1"));
    assert_eq!(stub.embedding_calls().len(), 1);
    eventually("it is released", async || lease(&redis).is_empty()).await;
}

#[tokio::test]
async fn replicas_that_wait_for_a_refused_text_ask_for_themselves_at_once() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let [one, other, third] = replicas(&stub, &redis).await;
    stub.always(refusal());
    let (body, begun) = (texts_of(&["a"]), Instant::now());
    let holding = one.embed(&body);
    let waiting = async {
        stub.held(1).await;
        futures_util::future::join(other.embed(&body), third.embed(&body)).await
    };
    let release = async {
        eventually("two wait", async || redis.calls("set") >= 3).await;
        stub.release(1);
        // Both calls are under way together.
        stub.held(2).await;
        stub.release_all();
    };
    let (first, (second, last), ()) = tokio::join!(holding, waiting, release);
    assert_eq!([first.status, second.status, last.status], [400; 3]);
    assert_eq!(first.body, last.body, "each gets its own refusal");
    assert_eq!(stub.embedding_calls().len(), 3);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_caller_that_hangs_up_leaves_its_fetch_to_the_replicas_that_wait() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let [one, other, _] = replicas(&stub, &redis).await;
    stub.next(Behaviour::Gate);
    let body = texts_of(&["a"]);
    let leave = async {
        // The request is dropped while its call is under way.
        tokio::select! {
            answer = one.embed(&body) => panic!("{answer:?}"),
            () = async { stub.held(1).await } => {}
        }
    };
    leave.await;
    let release = async {
        eventually("the other waits", async || redis.calls("set") >= 2).await;
        stub.release_all();
    };
    let (answer, ()) = tokio::join!(sources(&other, &["a"]), release);
    assert_eq!(answer, "redis=1");
    assert_eq!(stub.embedding_calls().len(), 1);
    stored(&redis, 1).await;
}

#[tokio::test]
async fn a_request_of_many_inputs_takes_all_leases_with_few_commands() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let one = replica(&stub, &redis.url(), &[]).await;
    let texts: Vec<String> = (0..2_048).map(|n| format!("text {n}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    assert_eq!(sources(&one, &texts).await, "upstream=2048");
    stored(&redis, 2_048).await;
    eventually("all leases are released", async || lease(&redis).is_empty()).await;
    // Requests and releases of 64 leases each. A batch of writes releases its own leases, and one may be smaller.
    let scripts = redis.calls("eval");
    assert!((64..=200).contains(&scripts), "{scripts}");
}

#[tokio::test]
async fn a_forgotten_text_is_fetched_again_by_the_replica_that_waits() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let [one, other, _] = replicas(&stub, &redis).await;
    stub.next(Behaviour::Gate);
    let purge = async {
        stub.held(1).await;
        super::purge(&one, "").await;
        stub.release_all();
    };
    let waiting = async {
        stub.held(1).await;
        sources(&other, &["a"]).await
    };
    let (first, second, ()) = tokio::join!(sources(&one, &["a"]), waiting, purge);
    // The vector of the first call is older than the purge, so it is not stored.
    assert_eq!((&*first, &*second), ("upstream=1", "upstream=1"));
    assert_eq!(stub.embedding_calls().len(), 2);
}

#[tokio::test]
async fn a_login_without_scripts_reads_and_writes_without_leases() {
    let stub = Stub::start();
    let rights = ["+getrange", "+get", "+set", "+hgetall", "+hget", "+hset", "+del", "+select"];
    let mut redis = Redis::absent().with(&["--requirepass", "admin", "--user", "app", "on", ">right", "~vecho:*"]);
    redis = redis.with(&rights).with_cli_arguments(&["-a", "admin"]);
    redis.go_on();
    let url = redis.url();
    let start = || Vecho::start_with(&stub.base_url(), &login(&url));
    let [one, other] = [start(), start()];
    let ask = async |vecho: &Vecho, text: &str| {
        let url = format!("{}/embeddings", vecho.base_url());
        Client::new().post(&url, &texts_of(&[text])).await.sources().to_owned()
    };
    for vecho in [&one, &other] {
        vecho.logged("its tier is up").await;
    }
    for text in ["a", "b", "c"] {
        assert_eq!(ask(&one, text).await, "upstream=1");
    }
    stored(&redis, 3).await;
    for text in ["a", "b", "c"] {
        assert_eq!(ask(&other, text).await, "redis=1");
    }
    let log = one.stop().log;
    assert_eq!(log.matches("Redis refuses scripts").count(), 1, "{log}");
    assert!(!log.contains("tier is down"), "{log}");
    assert!(lease(&redis).is_empty());
}

#[tokio::test]
async fn a_hit_in_redis_takes_no_lease() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let [one, other, _] = replicas(&stub, &redis).await;
    sources(&one, &["a", "b"]).await;
    stored(&redis, 2).await;
    eventually("the leases are released", async || lease(&redis).is_empty()).await;
    let before = redis.calls("set");
    assert_eq!(sources(&other, &["a", "b"]).await, "redis=2");
    assert_eq!(redis.calls("set"), before, "nothing is written for it");
}

#[tokio::test]
async fn a_request_for_cached_entries_only_takes_no_lease() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let [one, other, _] = replicas(&stub, &redis).await;
    let cached_only = [("cache-control", "only-if-cached")];
    assert_eq!(one.embed_with(&cached_only, texts_of(&["a"])).await.status, 504);
    assert!(lease(&redis).is_empty());
    assert_eq!(sources(&other, &["a"]).await, "upstream=1");
}
