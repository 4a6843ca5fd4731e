//! Outages of Redis: requests take no longer than the configured timeout allows.

use std::time::{Duration, Instant};

use super::{DOWN, DROPPED, LOOKUPS, comes_up, goes_down, replica, sources, started, stored};
use crate::harness::front::texts_of;
use crate::harness::ops::metric;
use crate::harness::proxy::Proxy;
use crate::harness::redis::Redis;
use crate::harness::{Client, Inside, Stub, Vecho, eventually};

const TIMEOUT: Duration = Duration::from_millis(300);
/// Margin beyond the timeout, for a busy machine.
const MARGIN: Duration = Duration::from_millis(1_500);

const IMPATIENT: [(&str, &str); 2] = [("redis.timeout", "300ms"), ("redis.connect_timeout", "1s")];

/// Requests new texts one by one, and checks the time of each answer.
async fn go_on(replica: &Inside, name: &str, count: usize) {
    for n in 0..count {
        let begun = Instant::now();
        assert_eq!(sources(replica, &[&format!("{name} {n}")]).await, "upstream=1");
        assert!(begun.elapsed() < TIMEOUT + MARGIN, "request {n} took {:?}", begun.elapsed());
    }
}

/// Waits until the tier is down, and checks that further requests do not query it.
async fn succeed_without_querying_redis(replica: &Inside, name: &str) {
    goes_down(replica).await;
    let asked = replica.metric(LOOKUPS).await;
    go_on(replica, name, 20).await;
    assert!((replica.metric(LOOKUPS).await - asked).abs() < f64::EPSILON, "nobody asks it");
}

/// Checks that another replica finds a text that this one fetches.
async fn is_shared(one: &Inside, stub: &Stub, url: &str, text: &str) {
    sources(one, &[text]).await;
    let other = replica(stub, url, &[]).await;
    let found = async || {
        let url = format!("http://{}/api/performance/cache/explain", other.admin());
        other.client.post(&url, &texts_of(&[text])).await.json()["inputs"][0]["tier"] == "redis"
    };
    eventually("it is shared", found).await;
}

#[tokio::test]
async fn redis_may_be_absent_at_the_start() {
    let (mut redis, stub) = (Redis::absent(), Stub::start());
    let replica = started(&stub, &redis.url(), &IMPATIENT).await;
    go_on(&replica, "early", 5).await;
    succeed_without_querying_redis(&replica, "absent").await;
    let health = replica.health().await;
    assert_eq!(health["status"], "degraded");
    let warning = health["warnings"][0].as_str().expect("a warning");
    assert!(warning.starts_with("the redis tier is down: ") && warning.contains("refused"), "{warning}");
    redis.go_on();
    comes_up(&replica).await;
    is_shared(&replica, &stub, &redis.url(), "late").await;
}

#[tokio::test]
async fn redis_may_be_killed_and_restarted() {
    let (mut redis, stub) = (Redis::start(), Stub::start());
    let replica = replica(&stub, &redis.url(), &IMPATIENT).await;
    go_on(&replica, "before", 3).await;
    redis.kill();
    go_on(&replica, "at once", 5).await;
    succeed_without_querying_redis(&replica, "without").await;
    redis.go_on();
    comes_up(&replica).await;
    is_shared(&replica, &stub, &redis.url(), "after").await;
    assert_eq!(sources(&replica, &["before 0"]).await, "memory=1", "what it lost is not missed");
}

#[tokio::test]
async fn an_unresponsive_redis_takes_the_tier_down() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let replica = replica(&stub, &redis.url(), &IMPATIENT).await;
    redis.freeze();
    go_on(&replica, "frozen", 5).await;
    succeed_without_querying_redis(&replica, "left alone").await;
    assert!(replica.metric(LOOKUPS).await <= 3.0, "three late answers are enough");
    redis.thaw();
    comes_up(&replica).await;
    is_shared(&replica, &stub, &redis.url(), "thawed").await;
}

#[tokio::test]
async fn concurrent_requests_wait_together_for_an_unresponsive_redis() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let replica = replica(&stub, &redis.url(), &IMPATIENT).await;
    redis.freeze();
    let begun = Instant::now();
    let texts: Vec<String> = (0..50).map(|n| format!("herd {n}")).collect();
    let asked = texts.iter().map(|text| async { sources(&replica, &[text]).await });
    futures_util::future::join_all(asked).await;
    assert!(begun.elapsed() < TIMEOUT + 2 * MARGIN, "they wait together: {:?}", begun.elapsed());
    succeed_without_querying_redis(&replica, "left alone").await;
    redis.thaw();
    comes_up(&replica).await;
}

#[tokio::test]
async fn an_unresponsive_redis_is_detected_without_requests() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let replica = replica(&stub, &redis.url(), &IMPATIENT).await;
    redis.freeze();
    succeed_without_querying_redis(&replica, "left alone").await;
    redis.thaw();
    comes_up(&replica).await;
}

#[tokio::test]
async fn a_redis_that_is_too_slow_takes_the_tier_down() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let proxy = Proxy::start(redis.port()).await;
    let replica = replica(&stub, &format!("redis://{}", proxy.addr), &IMPATIENT).await;
    proxy.delay(TIMEOUT * 2);
    go_on(&replica, "slow", 5).await;
    succeed_without_querying_redis(&replica, "left alone").await;
    let tried = redis.calls("hgetall");
    eventually("it is tried again", async || redis.calls("hgetall") >= tried + 2).await;
    assert!((replica.metric(DOWN).await - 1.0).abs() < f64::EPSILON, "an answer that comes too late is none");
    proxy.delay(Duration::ZERO);
    comes_up(&replica).await;
    is_shared(&replica, &stub, &redis.url(), "fast").await;
}

#[tokio::test]
async fn a_paused_redis_takes_the_tier_down_until_it_resumes() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let replica = replica(&stub, &redis.url(), &IMPATIENT).await;
    redis.cli(&["client", "pause", "3000", "all"]);
    go_on(&replica, "paused", 5).await;
    succeed_without_querying_redis(&replica, "left alone").await;
    comes_up(&replica).await;
}

#[tokio::test]
async fn one_late_answer_is_no_outage() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let replica = replica(&stub, &redis.url(), &IMPATIENT).await;
    redis.cli(&["client", "pause", "400", "all"]);
    go_on(&replica, "late", 1).await;
    let asked = replica.metric(LOOKUPS).await;
    go_on(&replica, "then", 3).await;
    assert!((replica.metric(LOOKUPS).await - asked - 3.0).abs() < f64::EPSILON, "it is still asked");
}

#[tokio::test]
async fn late_answers_with_others_between_them_are_no_outage() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let settings = [("redis.timeout", "1s"), IMPATIENT[1]];
    let replica = replica(&stub, &redis.url(), &settings).await;
    for round in 0..4 {
        redis.cli(&["client", "pause", "1200", "all"]);
        assert_eq!(sources(&replica, &[&format!("late {round}")]).await, "upstream=1");
        let asked = replica.metric(LOOKUPS).await;
        assert_eq!(sources(&replica, &[&format!("in time {round}")]).await, "upstream=1");
        assert!(replica.metric(LOOKUPS).await > asked, "round {round}: it is still asked");
        // A late write would also count, as the third failure in a row.
        eventually("all of it is written", async || redis.records().len() >= 2 * (round + 1)).await;
    }
}

#[tokio::test]
async fn a_full_redis_still_serves_reads() {
    let mut redis = Redis::absent().with(&["--maxmemory-policy", "noeviction"]);
    redis.go_on();
    let stub = Stub::start();
    let environment =
        [("VECHO_REDIS_URL", &*redis.url()), ("VECHO_REDIS_TIMEOUT", "5s"), ("VECHO_DISK_ENABLED", "false")];
    let start = || Vecho::start_with(&stub.base_url(), &environment);
    let (one, other) = (start(), start());
    let ask_of = async |vecho: &Vecho, text: &str| {
        let answer = Client::new().post(&format!("{}/embeddings", vecho.base_url()), &texts_of(&[text])).await;
        answer.sources().to_owned()
    };
    let ask = async |text: &str| ask_of(&one, text).await;
    one.logged("its tier is up").await;
    other.logged("its tier is up").await;
    ask_of(&other, "old").await;
    stored(&redis, 1).await;
    redis.cli(&["config", "set", "maxmemory", "1"]);
    for n in 0..5 {
        assert_eq!(ask(&format!("new {n}")).await, "upstream=1");
    }
    eventually("what is not written is counted", async || metric(one.admin(), DROPPED).await >= 5.0).await;
    assert_eq!(ask("old").await, "redis=1", "reads continue");
    redis.cli(&["config", "set", "maxmemory", "0"]);
    ask("newer").await;
    stored(&redis, 2).await;
    one.logged("accepts writes again").await;
    let log = one.stop().log;
    assert_eq!(log.matches("Redis rejects writes").count(), 1, "{log}");
    assert!(log.contains("OOM") && !log.contains("tier is down"), "{log}");
}

#[tokio::test]
async fn a_read_only_replica_serves_reads_and_drops_writes() {
    let (master, stub) = (Redis::start(), Stub::start());
    let mut copy = Redis::absent().with(&["--replicaof", "127.0.0.1", &master.port().to_string()]);
    copy.go_on();
    let one = replica(&stub, &master.url(), &[]).await;
    let reader = replica(&stub, &copy.url(), &[]).await;
    sources(&one, &["a"]).await;
    stored(&copy, 1).await;
    assert_eq!(sources(&reader, &["a"]).await, "redis=1");
    assert_eq!(sources(&reader, &["b"]).await, "upstream=1");
    eventually("what is not written is counted", async || reader.metric(DROPPED).await >= 1.0).await;
    comes_up(&reader).await;
}

#[tokio::test]
async fn a_redis_outage_is_logged_in_two_lines() {
    let (mut redis, stub) = (Redis::start(), Stub::start());
    let environment =
        [("VECHO_REDIS_URL", &*redis.url()), ("VECHO_REDIS_TIMEOUT", "300ms"), ("VECHO_DISK_ENABLED", "false")];
    let vecho = Vecho::start_with(&stub.base_url(), &environment);
    vecho.logged("its tier is up").await;
    redis.kill();
    let ask = async |n: usize| {
        let answer =
            Client::new().post(&format!("{}/embeddings", vecho.base_url()), &texts_of(&[&n.to_string()])).await;
        assert_eq!(answer.sources(), "upstream=1");
    };
    vecho.logged("the Redis tier is down").await;
    for n in 0..10 {
        ask(n).await;
    }
    redis.go_on();
    eventually("it is up again", async || vecho.log().matches("its tier is up").count() == 2).await;
    let log = vecho.stop().log;
    assert_eq!((log.matches("the Redis tier is down").count(), log.matches("its tier is up").count()), (1, 2), "{log}");
}

#[tokio::test]
async fn writes_beyond_the_queue_are_dropped_and_counted() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let settings = [IMPATIENT[0], IMPATIENT[1], ("redis.queue_mb", "1")];
    let replica = replica(&stub, &redis.url(), &settings).await;
    redis.freeze();
    for n in 0..4 {
        let texts: Vec<String> = (0..100).map(|text| format!("{n} {text}")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let body = serde_json::json!({"model": "text-embedding-3-small", "input": texts});
        assert_eq!(replica.embed(body).await.status, 200);
    }
    assert!(replica.metric(DROPPED).await > 0.0);
    redis.thaw();
}
