//! Replicas that share their counts through a real Redis.

use super::{SPENT, assert_refused, of_tokens, whole};
use crate::harness::ops::metric_becomes;
use crate::harness::redis::Redis;
use crate::harness::{Inside, Stub, eventually};

const BUDGET: (&str, &str) = ("budget.tokens_per_day", "100");
const DOWN: &str = r#"vecho_cache_tier_down{tier="redis"}"#;

async fn replica(stub: &Stub, redis: &Redis) -> Inside {
    let url = redis.url();
    let pairs = [BUDGET, ("redis.url", url.as_str()), ("fallback.mode", "error")];
    let replica = Inside::start(&stub.base_url(), &pairs).await;
    metric_becomes(replica.admin(), DOWN, 0.0).await;
    replica
}

async fn shows(replica: &Inside, tokens: u64) {
    let shown = async || whole(replica.metric(SPENT).await) == tokens;
    eventually(&format!("{tokens} tokens spent"), shown).await;
}

#[tokio::test]
async fn replicas_share_one_budget() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let (one, other) = (replica(&stub, &redis).await, replica(&stub, &redis).await);
    assert_eq!(one.embed(of_tokens("one", 60)).await.status, 200);
    shows(&other, 60).await;
    assert_refused(&other.embed(of_tokens("two", 41)).await);
    assert_eq!(other.embed(of_tokens("two", 40)).await.status, 200);
    shows(&one, 100).await;
    assert_refused(&one.embed(of_tokens("three", 2)).await);
    assert_eq!(stub.billed_tokens(), 100);
    let late = replica(&stub, &redis).await;
    shows(&late, 100).await;
    let names = redis.cli(&["--scan", "--pattern", "*spending*"]);
    let expires: i64 = redis.cli(&["ttl", &names]).parse().expect("a number");
    assert!((1..=48 * 3_600).contains(&expires), "{expires}");
}

#[tokio::test]
async fn a_replica_that_stops_leaves_its_count_to_the_others() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let (one, other) = (replica(&stub, &redis).await, replica(&stub, &redis).await);
    assert_eq!(one.embed(of_tokens("one", 60)).await.status, 200);
    one.stop().await;
    shows(&other, 60).await;
    other.stop().await;
    let next = replica(&stub, &redis).await;
    shows(&next, 60).await;
}

#[tokio::test]
async fn while_redis_is_down_each_replica_goes_on_with_what_it_knows() {
    let (mut redis, stub) = (Redis::start(), Stub::start());
    let (one, other) = (replica(&stub, &redis).await, replica(&stub, &redis).await);
    assert_eq!(one.embed(of_tokens("one", 60)).await.status, 200);
    shows(&other, 60).await;
    redis.kill();
    for replica in [&one, &other] {
        metric_becomes(replica.admin(), DOWN, 1.0).await;
        assert_refused(&replica.embed(of_tokens("large", 41)).await);
    }
    // Neither hears of the other, so both spend the rest.
    assert_eq!(one.embed(of_tokens("two", 40)).await.status, 200);
    assert_eq!(other.embed(of_tokens("three", 30)).await.status, 200);
    // The new Redis is empty, and is complete again after one round of all replicas.
    redis.go_on();
    for replica in [&one, &other] {
        shows(replica, 130).await;
        assert_refused(&replica.embed(of_tokens("four", 2)).await);
    }
    assert_eq!(stub.billed_tokens(), 130);
}

#[tokio::test]
async fn a_start_without_redis_counts_alone_and_catches_up() {
    let (mut redis, stub) = (Redis::absent(), Stub::start());
    let url = redis.url();
    let pairs = [BUDGET, ("redis.url", url.as_str()), ("fallback.mode", "error")];
    let replicas = [Inside::start(&stub.base_url(), &pairs).await, Inside::start(&stub.base_url(), &pairs).await];
    for (replica, name) in replicas.iter().zip(["one", "two"]) {
        assert_eq!(replica.embed(of_tokens(name, 30)).await.status, 200);
    }
    redis.go_on();
    for replica in &replicas {
        shows(replica, 60).await;
    }
}

#[tokio::test]
async fn a_killed_replica_with_a_folder_continues_its_count() {
    use crate::disk::ground::Folder;
    use crate::harness::{Client, Vecho, ops::metric};
    let (redis, stub, folder) = (Redis::start(), Stub::start(), Folder::new());
    let url = redis.url();
    let environment =
        [("VECHO_REDIS_URL", url.as_str()), ("VECHO_DISK_PATH", folder.text()), ("VECHO_BUDGET_TOKENS_PER_DAY", "100")];
    let start = || Vecho::start_with(&stub.base_url(), &environment);
    let shown = async |vecho: &Vecho, tokens: u64| {
        let is_shown = async || whole(metric(vecho.admin(), SPENT).await) == tokens;
        eventually(&format!("{tokens} tokens spent"), is_shown).await;
    };
    let vecho = start();
    metric_becomes(vecho.admin(), DOWN, 0.0).await;
    let client = Client::new();
    let embed = async |vecho: &Vecho, name: &str, tokens: usize| {
        client.post(&format!("{}/embeddings", vecho.base_url()), &of_tokens(name, tokens)).await.status
    };
    assert_eq!(embed(&vecho, "one", 40).await, 200);
    let told = async || {
        redis
            .cli(&["--scan", "--pattern", "*spending*"])
            .lines()
            .any(|name| redis.cli(&["hvals", name]).lines().any(|value| value.starts_with("40 ")))
    };
    eventually("the count in Redis", told).await;
    vecho.signal("KILL");
    vecho.ended();
    // The file may be older than what Redis holds of this replica; the count is the newer one, and counts once.
    let vecho = start();
    metric_becomes(vecho.admin(), DOWN, 0.0).await;
    shown(&vecho, 40).await;
    assert_eq!(embed(&vecho, "two", 50).await, 200);
    let other = Vecho::start_with(
        &stub.base_url(),
        &[("VECHO_REDIS_URL", url.as_str()), ("VECHO_BUDGET_TOKENS_PER_DAY", "100")],
    );
    shown(&other, 90).await;
    assert_eq!(stub.billed_tokens(), 90);
}
