//! The shared purge counts: each is compared before it is changed, and saved locally before it takes effect.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::json;
use vecho::cache::LowerTier as _;
use vecho::cache::purges::{PurgeCounts, PurgeNews};
use vecho::cache::redis::{OnPurges, RedisParts, RedisTier};
use vecho::config::Config;
use vecho::observe::metrics::Metrics;
use vecho::process::clock::Clock;

use super::{purge, replica};
use crate::harness::redis::Redis;
use crate::harness::{Stub, eventually};

const COUNTS: &str = "vecho:1:purges";

/// Waits until Redis has paused a client in the middle of this command.
async fn is_held(redis: &Redis, command: &str) {
    let held = async || {
        let clients = redis.cli(&["client", "list"]);
        clients.lines().any(|client| client.contains("flags=b ") && client.contains(&format!("cmd={command} ")))
    };
    eventually(&format!("{command} is held"), held).await;
}

#[tokio::test]
async fn a_count_that_changed_after_it_was_read_is_not_overwritten() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let one = replica(&stub, &redis.url(), &[]).await;
    // Redis answers reads. Writes wait and are executed in order of arrival.
    redis.cli(&["client", "pause", "60000", "write"]);
    let other = redis.begin_cli(&["hset", COUNTS, "everything", "1700000000007"]);
    is_held(&redis, "hset").await;
    let release = async {
        is_held(&redis, "eval").await;
        redis.cli(&["client", "unpause"]);
    };
    let (purged, ()) = tokio::join!(purge(&one, ""), release);
    assert!(other.wait_with_output().expect("redis-cli must end").status.success());
    assert_eq!(purged["pending"], json!([]), "it is tried again with the count that is there");
    assert_eq!(redis.cli(&["hget", COUNTS, "everything"]), "1700000000008", "above all that either replica counted");
}

/// Records the purge counts that it receives.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<(&'static str, PurgeNews)>>>);

impl Told {
    fn push(&self, step: &'static str, counts: &PurgeNews) {
        self.0.lock().expect("no test panics with it").push((step, counts.clone()));
    }
}

impl OnPurges for Told {
    fn note_ahead<'a>(&'a self, counts: &'a PurgeNews) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            self.push("noted", counts);
        })
    }

    fn learn(&self, counts: &PurgeNews) -> Option<BoxFuture<'static, ()>> {
        self.push("in force", counts);
        None
    }
}

#[tokio::test]
async fn purges_of_other_replicas_are_saved_before_they_apply() {
    let redis = Redis::start();
    redis.cli(&["hset", COUNTS, "model:tiny", "3"]);
    let config = Config::from_pairs(&[("redis.url", &redis.url()), ("redis.connect_timeout", "5s")]);
    let (clock, metrics) = (Clock::manual(0), Metrics::new("test"));
    let parts = RedisParts { clock, metrics, purges: Arc::default(), max_read_bytes: 1 << 20 };
    let (tier, told) = (RedisTier::new(config.expect("it is legal").redis, parts), Told::default());
    tier.begin(Box::new(told.clone()));
    eventually("the tier is up", async || tier.stats().up).await;
    redis.cli(&["hset", COUNTS, "model:tiny", "4"]);
    let counts = |count| PurgeNews::from(PurgeCounts::from([("tiny".to_owned(), count)]));
    let last = || told.0.lock().expect("no test panics with it").last().cloned();
    eventually("the second purge is learnt", async || last() == Some(("in force", counts(4)))).await;
    let steps = told.0.lock().expect("no test panics with it").clone();
    for (place, pair) in steps.chunks(2).enumerate() {
        let [("noted", noted), ("in force", learnt)] = pair else { panic!("step {place}: {steps:?}") };
        assert_eq!(noted, learnt, "step {place}");
    }
    assert_eq!(steps[1], ("in force", counts(3)));
    assert_eq!(tier.close(Duration::from_secs(5)).await, 0);
}
