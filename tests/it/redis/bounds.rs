//! The limit on the bytes that one look-up reads.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use vecho::cache::purges::PurgeNews;
use vecho::cache::redis::{OnPurges, RedisParts, RedisTier};
use vecho::cache::{AtRest, LowerTier as _};
use vecho::config::Config;
use vecho::key::Key;
use vecho::observe::metrics::Metrics;
use vecho::process::clock::Clock;

use crate::harness::eventually;
use crate::harness::redis::Redis;

/// Ignores purges.
struct Deaf;

impl OnPurges for Deaf {
    fn note_ahead<'a>(&'a self, _: &'a PurgeNews) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }

    fn learn(&self, _: &PurgeNews) -> Option<BoxFuture<'static, ()>> {
        None
    }
}

/// Starts a tier that reads this number of bytes in one look-up, and waits until it is up.
pub(super) async fn tier(redis: &Redis, max_read_bytes: usize) -> RedisTier {
    let config = Config::from_pairs(&[("redis.url", &redis.url()), ("redis.timeout", "5s")]);
    let (clock, metrics) = (Clock::manual(0), Metrics::new("test"));
    let parts = RedisParts { clock, metrics, purges: Arc::default(), max_read_bytes };
    let tier = RedisTier::new(config.expect("it is legal").redis, parts);
    tier.begin(Box::new(Deaf));
    eventually("the tier is up", async || tier.stats().up).await;
    tier
}

/// Returns eight keys that are stored with values of one byte.
async fn stored(redis: &Redis) -> Vec<Key> {
    let (writer, keys): (_, Vec<Key>) =
        (tier(redis, 1 << 30).await, (0..8).map(|n| Key::from_bytes([n; 32])).collect());
    for key in &keys {
        writer.put(*key, AtRest { bytes: "x".into(), until_ms: 3_600_000 });
    }
    assert_eq!(writer.close(Duration::from_secs(20)).await, 0);
    assert_eq!(redis.records().len(), keys.len());
    keys
}

fn lengthen(redis: &Redis, bytes: usize) {
    for name in redis.records() {
        redis.cli(&["setrange", &name, &(bytes - 1).to_string(), "x"]);
    }
}

#[tokio::test]
async fn a_lookup_stops_at_its_read_limit_and_the_rest_are_misses() {
    let redis = Redis::start();
    let keys = stored(&redis).await;
    let tier = tier(&redis, 300_000).await;
    let found = async || -> Vec<usize> {
        let found = tier.get(&keys).await;
        assert_eq!(found.len(), keys.len());
        found.iter().map(|bytes| bytes.as_ref().map_or(0, bytes::Bytes::len)).collect()
    };
    assert_eq!(found().await, [1; 8]);
    for (bytes, expected) in [(200_000, 2), (260_000, 2), (100_000, 4)] {
        for name in redis.records() {
            redis.cli(&["set", &name, "x"]);
        }
        lengthen(&redis, bytes);
        let read_before = redis.calls("getrange");
        let lengths = found().await;
        assert_eq!(lengths, [vec![bytes; expected], vec![0; 8 - expected]].concat(), "values of {bytes} bytes");
        assert_eq!(redis.calls("getrange") - read_before, expected as u64, "no more is read than is used");
    }
    let stats = tier.stats();
    assert_eq!((stats.up, stats.hits, stats.misses), (true, 8 + 2 + 2 + 4, 6 + 6 + 4));
}

#[tokio::test]
async fn values_longer_than_any_record_are_misses_and_not_an_outage() {
    let redis = Redis::start();
    let keys = stored(&redis).await;
    let tier = tier(&redis, 300_000).await;
    lengthen(&redis, 2_000_000);
    assert!(tier.get(&keys).await.iter().all(Option::is_none));
    assert!(tier.stats().up);
    let sent: u64 = info(&redis, "total_net_output_bytes");
    assert!(tier.get(&keys).await.iter().all(Option::is_none));
    let sent = info(&redis, "total_net_output_bytes") - sent;
    assert!(sent < 8 * 300_000, "Redis sent {sent} bytes");
}

fn info(redis: &Redis, name: &str) -> u64 {
    let stats = redis.cli(&["info", "stats"]);
    let value = stats.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.expect("Redis counts it").trim().parse().expect("a count is a number")
}
