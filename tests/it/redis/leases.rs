//! Leases: one fetch of an input across all replicas.

use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::{LOOKUPS, goes_down, replica, sources, started, stored};
use crate::harness::front::texts_of;
use crate::harness::proxy::Proxy;
use crate::harness::redis::Redis;
use crate::harness::{Behaviour, Client, Inside, Stub, Vecho, eventually};

const LEASE: (&str, &str) = ("redis.lease", "20s");

async fn replicas(stub: &Stub, redis: &Redis, settings: &[(&str, &str)]) -> [Inside; 3] {
    let one = async || replica(stub, &redis.url(), settings).await;
    [one().await, one().await, one().await]
}

/// Waits until this number of leases is held.
async fn leases(redis: &Redis, count: usize) {
    let held = async || redis.cli(&["--scan", "--pattern", "*:lease:*"]).lines().count() == count;
    eventually(&format!("{count} leases"), held).await;
}

/// Starts the real binary and waits until its Redis tier is up.
async fn process(stub: &Stub, redis: &Redis, lease: &str) -> Vecho {
    let environment = [
        ("VECHO_REDIS_URL", &*redis.url()),
        ("VECHO_REDIS_TIMEOUT", "5s"),
        ("VECHO_REDIS_LEASE", lease),
        ("VECHO_DISK_ENABLED", "false"),
    ];
    let vecho = Vecho::start_with(&stub.base_url(), &environment);
    vecho.logged("its tier is up").await;
    vecho
}

async fn sources_of(vecho: &Vecho, texts: &[&str]) -> String {
    let answer = Client::new().post(&format!("{}/embeddings", vecho.base_url()), &texts_of(texts)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.sources().to_owned()
}

#[tokio::test]
async fn equal_misses_on_two_processes_make_one_call() {
    equal_misses_make_one_call_on(2).await;
}

#[tokio::test]
async fn equal_misses_on_three_processes_make_one_call() {
    equal_misses_make_one_call_on(3).await;
}

async fn equal_misses_make_one_call_on(count: usize) {
    let (redis, stub) = (Redis::start(), Stub::start());
    let mut processes = Vec::new();
    for _ in 0..count {
        processes.push(process(&stub, &redis, "20s").await);
    }
    stub.always(Behaviour::Delay(Duration::from_millis(200)));
    let asked = (0..30).map(|n| sources_of(&processes[n % count], &["a", "b"]));
    let answers = futures_util::future::join_all(asked).await;
    assert_eq!(stub.embedding_calls().len(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|sources| *sources == "upstream=2").count(), 1, "{answers:?}");
    assert!(answers.iter().any(|sources| sources == "redis=2"), "{answers:?}");
    leases(&redis, 0).await;
}

#[tokio::test]
async fn two_processes_without_leases_share_what_is_stored() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let (one, other) = (process(&stub, &redis, "0s").await, process(&stub, &redis, "0s").await);
    assert_eq!(sources_of(&one, &["a", "b"]).await, "upstream=2");
    stored(&redis, 2).await;
    assert_eq!(sources_of(&other, &["a", "b"]).await, "redis=2");
    assert_eq!(redis.calls("eval"), 0);
}

#[tokio::test]
async fn an_expired_lease_does_not_release_that_of_the_next_holder() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let [one, other, _] = replicas(&stub, &redis, &[("redis.lease", "1s")]).await;
    stub.always(Behaviour::Gate);
    let late = async {
        let answer = sources(&one, &["a"]).await;
        eventually("it tried to give it back", async || redis.calls("eval") >= 1).await;
        leases(&redis, 1).await;
        stub.release_all();
        answer
    };
    let next = async {
        stub.held(1).await;
        redis.cli(&["config", "resetstat"]);
        // The first lease expires while its holder is still waiting for the upstream. The next lease is made permanent.
        let taken = sources(&other, &["a"]);
        let lasting = async {
            stub.held(2).await;
            let lease = redis.cli(&["--scan", "--pattern", "*:lease:*"]);
            redis.cli(&["persist", &lease]);
            stub.release(1);
        };
        tokio::join!(taken, lasting).0
    };
    let answers = tokio::join!(late, next);
    assert_eq!(answers, ("upstream=1".to_owned(), "upstream=1".to_owned()));
    leases(&redis, 0).await;
}

#[tokio::test]
async fn overlapping_requests_on_two_replicas_fetch_each_input_once() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let [one, other, _] = replicas(&stub, &redis, &[LEASE]).await;
    stub.always(Behaviour::Gate);
    let first = async { sources(&one, &["a", "b"]).await };
    let second = async {
        stub.held(1).await;
        sources(&other, &["b", "c"]).await
    };
    let release = async {
        stub.held(2).await;
        stub.release_all();
    };
    let (first, second, ()) = tokio::join!(first, second, release);
    assert_eq!((&*first, &*second), ("upstream=2", "redis=1, upstream=1"));
    assert_eq!(stub.inputs_sent(), 3);
}

#[tokio::test]
async fn without_leases_each_replica_fetches_separately() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let [one, other, _] = replicas(&stub, &redis, &[("redis.lease", "0s")]).await;
    stub.always(Behaviour::Gate);
    let asked = futures_util::future::join(sources(&one, &["a"]), sources(&other, &["a"]));
    let release = async {
        stub.held(2).await;
        stub.release_all();
    };
    let (answers, ()) = tokio::join!(asked, release);
    assert_eq!(answers, ("upstream=1".to_owned(), "upstream=1".to_owned()));
}

#[tokio::test]
async fn a_dead_leader_is_replaced_when_its_lease_expires() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let leader = process(&stub, &redis, "3s").await;
    let [one, other, _] = replicas(&stub, &redis, &[("redis.lease", "3s")]).await;
    stub.next(Behaviour::Gate);
    let url = format!("{}/embeddings", leader.base_url());
    let lost =
        tokio::spawn(async move { Client::new().send(crate::harness::client::post(&url, &texts_of(&["a"]))).await });
    stub.held(1).await;
    leases(&redis, 1).await;
    let begun = Instant::now();
    let waiting = futures_util::future::join(sources(&one, &["a"]), sources(&other, &["a"]));
    let kill = async {
        eventually("both wait", async || one.metric(LOOKUPS).await + other.metric(LOOKUPS).await >= 2.0).await;
        leader.signal("KILL");
    };
    let (answers, ()) = tokio::join!(waiting, kill);
    assert!(lost.await.expect("the task ends").is_err(), "its caller gets no answer");
    assert_eq!(stub.embedding_calls().len(), 2, "one of the two takes over: {answers:?}");
    assert!(begun.elapsed() < Duration::from_secs(3 + 3), "{:?}", begun.elapsed());
    let mut answers = [answers.0, answers.1];
    answers.sort();
    assert_eq!(answers, ["redis=1", "upstream=1"]);
}

#[tokio::test]
async fn a_failed_leader_releases_its_lease_at_once() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let [one, other, _] = replicas(&stub, &redis, &[LEASE]).await;
    stub.next(Behaviour::All(vec![
        Behaviour::Gate,
        Behaviour::Status { code: 500, headers: vec![], body: "{}".to_owned() },
    ]));
    let body = texts_of(&["a"]);
    let failing = one.embed(&body);
    let waiting = async {
        stub.held(1).await;
        sources(&other, &["a"]).await
    };
    let release = async {
        eventually("the other waits", async || redis.calls("set") >= 2).await;
        stub.release_all();
    };
    let begun = Instant::now();
    let (failed, answered, ()) = tokio::join!(failing, waiting, release);
    assert!(failed.status >= 500, "{failed:?}");
    assert_eq!(answered, "upstream=1");
    assert!(begun.elapsed() < Duration::from_secs(10), "it did not wait for the lease: {:?}", begun.elapsed());
}

#[tokio::test]
async fn no_store_and_no_cache_requests_ignore_leases() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let [one, other, _] = replicas(&stub, &redis, &[LEASE]).await;
    stub.next(Behaviour::Gate);
    let holding = async { sources(&one, &["a"]).await };
    let others = async {
        stub.held(1).await;
        leases(&redis, 1).await;
        for control in ["no-store", "no-cache"] {
            let headers = [("cache-control", control)];
            let asked = other.embed_with(&headers, texts_of(&["a"]));
            let answer = timeout(Duration::from_secs(15), asked).await.expect("it waits for no lease");
            assert_eq!(answer.sources(), "upstream=1", "{control}");
        }
        leases(&redis, 1).await;
        stub.release_all();
    };
    tokio::join!(holding, others);
    assert_eq!(stub.embedding_calls().len(), 3);
}

#[tokio::test]
async fn without_redis_a_replica_fetches_itself() {
    let (redis, stub) = (Redis::absent(), Stub::start());
    let one = started(&stub, &redis.url(), &[LEASE]).await;
    goes_down(&one).await;
    assert_eq!(sources(&one, &["a"]).await, "upstream=1");
}

#[tokio::test]
async fn a_replica_that_waits_when_redis_is_lost_fetches_itself() {
    let (mut redis, stub) = (Redis::start(), Stub::start());
    let [one, other, _] = replicas(&stub, &redis, &[LEASE, ("redis.timeout", "300ms")]).await;
    stub.next(Behaviour::Gate);
    let holding = async { sources(&one, &["a"]).await };
    let waiting = async {
        stub.held(1).await;
        sources(&other, &["a"]).await
    };
    let lose = async {
        eventually("the other waits", async || redis.calls("set") >= 2).await;
        redis.kill();
        stub.arrived(2).await;
        stub.release_all();
    };
    let begun = Instant::now();
    let (first, second, ()) = tokio::join!(holding, waiting, lose);
    assert_eq!((&*first, &*second), ("upstream=1", "upstream=1"));
    assert!(begun.elapsed() < Duration::from_secs(10), "it did not wait for the lease: {:?}", begun.elapsed());
}

#[tokio::test]
async fn records_awaited_through_a_lease_are_stored_in_memory() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let [one, other, _] = replicas(&stub, &redis, &[LEASE]).await;
    stub.next(Behaviour::Delay(Duration::from_millis(300)));
    let (first, second) = tokio::join!(sources(&one, &["a"]), async {
        stub.arrived(1).await;
        sources(&other, &["a"]).await
    });
    assert_eq!((&*first, &*second), ("upstream=1", "redis=1"));
    assert_eq!(sources(&other, &["a"]).await, "memory=1");
    stored(&redis, 1).await;
}

#[tokio::test]
async fn a_lease_granted_too_late_is_released() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let proxy = Proxy::start(redis.port()).await;
    let settings = [("redis.timeout", "500ms"), ("redis.lease", "5m")];
    let one = replica(&stub, &format!("redis://{}", proxy.addr), &settings).await;
    // Longer than the timeout, so the reply that grants the lease comes too late. Shorter than two timeouts, since the
    // relay passes the request for the lease on only after the delayed reply to the look-up.
    proxy.delay(Duration::from_millis(750));
    // The delay stays until the lease was seen. Otherwise its reply could arrive, and release it, before anybody looks.
    let (fetched, ()) = tokio::join!(sources(&one, &["a"]), leases(&redis, 1));
    assert_eq!(fetched, "upstream=1");
    proxy.delay(Duration::ZERO);
    leases(&redis, 0).await;
}
