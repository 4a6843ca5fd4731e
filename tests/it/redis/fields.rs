//! The hashes of small texts that replicas share.

use std::time::Duration;

use vecho::process::shared_fields::{ReplicaFields, SharedFields as _};

use super::bounds::tier;
use crate::harness::redis::Redis;

const TABLE: &str = "pace:a:b";
const KEPT_FOR: Duration = Duration::from_mins(2);

fn fields(names: &[&str]) -> ReplicaFields {
    names.iter().map(|name| ((*name).to_owned(), format!("1 {name}"))).collect()
}

#[tokio::test]
async fn an_exchange_removes_the_fields_of_dead_replicas_and_returns_all_others() {
    let redis = Redis::start();
    let tier = tier(&redis, 1 << 20).await;
    let others = fields(&["dead", "living"]);
    assert_eq!(tier.exchange(TABLE, (&others, &[]), KEPT_FOR).await, Ok(others));
    let gone = ["dead".to_owned(), "unknown".to_owned()];
    let left = fields(&["living", "own"]);
    assert_eq!(tier.exchange(TABLE, (&fields(&["own"]), &gone), KEPT_FOR).await, Ok(left));
    let name = redis.cli(&["--scan", "--pattern", &format!("*{TABLE}")]);
    let mut names: Vec<String> = redis.cli(&["hkeys", &name]).lines().map(str::to_owned).collect();
    names.sort();
    assert_eq!(names, ["living", "own"]);
    let seconds: u64 = redis.cli(&["ttl", &name]).parse().expect("it expires");
    assert!((1..=120).contains(&seconds), "{seconds} s");
}
