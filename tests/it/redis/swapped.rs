//! Values that are exchanged between keys in Redis become misses. No wrong vector is ever served.

use super::{replica, stored};
use crate::harness::front::{texts_of, tiny};
use crate::harness::redis::Redis;
use crate::harness::{Inside, Stub};

const RECORDS: usize = 200;

/// Rewrites all records, including the note of the newest model. `OF` is replaced by the index of each value's source.
const REWRITE: &str = "
    local names = {}
    for _, name in ipairs(redis.call('keys', '*:{*}')) do
        if not string.find(name, ':lease:', 1, true) then names[#names + 1] = name end
    end
    local values = redis.call('mget', unpack(names))
    for n, name in ipairs(names) do redis.call('set', name, values[OF], 'keepttl') end
    return #names";

fn texts() -> Vec<String> {
    (0..RECORDS).map(|n| format!("text {n}")).collect()
}

/// Requests all texts in one request and checks every vector.
async fn sources(replica: &Inside) -> String {
    let texts = texts();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let answer = replica.embed(texts_of(&texts)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.vectors() == tiny(&texts), "a wrong vector");
    answer.sources().to_owned()
}

/// Fills Redis through one replica, rewrites the values, and sends the request to a second replica that has them in
/// Redis only.
async fn no_wrong_vector(settings: &[(&str, &str)], value_of: &str) {
    let (redis, stub) = (Redis::start(), Stub::start());
    sources(&replica(&stub, &redis.url(), settings).await).await;
    stored(&redis, RECORDS).await;
    let rewritten = redis.cli(&["eval", &REWRITE.replace("OF", value_of), "0"]);
    assert_eq!(rewritten, (RECORDS + 1).to_string());
    let other = replica(&stub, &redis.url(), settings).await;
    let found = sources(&other).await;
    let kept = found.split(", ").find_map(|source| source.strip_prefix("redis=")?.parse::<usize>().ok()).unwrap_or(0);
    assert!(kept <= 1, "{found}: only a value that lies under its own key is served");
    assert_eq!(sources(&other).await, format!("memory={RECORDS}"));
}

#[tokio::test]
async fn values_shifted_by_one_key_are_misses() {
    no_wrong_vector(&[], "n % #names + 1").await;
}

#[tokio::test]
async fn one_value_under_all_keys_is_a_miss_under_the_others() {
    no_wrong_vector(&[], "1").await;
}

#[tokio::test]
async fn values_in_reverse_order_are_misses_with_a_secret() {
    no_wrong_vector(&[("cache.key_secret", "of the test")], "#names + 1 - n").await;
}

#[tokio::test]
async fn swapped_values_are_misses_with_leases() {
    no_wrong_vector(&[("redis.lease", "5s")], "n % #names + 1").await;
}

#[tokio::test]
async fn misses_replace_values_that_were_exchanged() {
    let (redis, stub) = (Redis::start(), Stub::start());
    sources(&replica(&stub, &redis.url(), &[]).await).await;
    stored(&redis, RECORDS).await;
    redis.cli(&["eval", &REWRITE.replace("OF", "n % #names + 1"), "0"]);
    let second = replica(&stub, &redis.url(), &[]).await;
    assert_eq!(sources(&second).await, format!("upstream={RECORDS}"));
    second.stop().await;
    let third = replica(&stub, &redis.url(), &[]).await;
    assert_eq!(sources(&third).await, format!("redis={RECORDS}"));
}
