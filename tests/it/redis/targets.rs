//! Several targets behind several replicas: all compare with the same vectors.

use http::Method;
use serde_json::{Value, json};

use super::replica;
use crate::harness::client::{Answer, raw};
use crate::harness::front::texts_of;
use crate::harness::redis::Redis;
use crate::harness::stub::Stub;
use crate::harness::{Behaviour, Inside, eventually};

/// Makes a server keep the model's name and have other weights from now on.
fn retrain(stub: &Stub) {
    let renamed = Behaviour::ModelName("tiny".to_owned());
    stub.always(Behaviour::All(vec![Behaviour::OtherModel("retrained".to_owned()), renamed]));
}

/// Starts a replica with these stubs as targets, in this order. Entries are those of `identity`.
async fn over(stubs: [(&str, &Stub); 2], redis: &Redis, identity: &str) -> Inside {
    let target = |(name, stub): (&str, &Stub)| json!({"name": name, "url": stub.base_url(), "api_key": "sk"});
    let targets = Value::from(stubs.map(target).to_vec()).to_string();
    let settings = [("targets", targets.as_str()), ("upstream.identity", identity), ("cache.scope", "proxy")];
    replica(stubs[0].1, &redis.url(), &settings).await
}

async fn embed(replica: &Inside, dimensions: usize, text: &str) -> Answer {
    replica.embed(json!({"model": "tiny", "dimensions": dimensions, "input": text})).await
}

#[tokio::test]
async fn a_target_that_disagrees_is_found_by_each_replica() {
    let (redis, stubs) = (Redis::start(), [Stub::start(), Stub::start()]);
    let url = stubs[0].base_url();
    let order = [("a", &stubs[0]), ("b", &stubs[1])];
    let (one, other) = (over(order, &redis, &url).await, over(order, &redis, &url).await);
    retrain(&stubs[1]);
    assert_eq!(one.embed(texts_of(&["x"])).await.status, 200);
    eventually("the reference is stored", async || redis.records().len() >= 4).await;
    stubs[0].down().await;
    for replica in [&one, &other] {
        assert!(replica.embed(texts_of(&["y"])).await.status >= 500, "an error, and no wrong vector");
        let series = r#"vecho_target_disagrees{model="tiny",target="b"}"#;
        assert_eq!(replica.metric(series).await.to_bits(), 1.0_f64.to_bits());
    }
    assert!(stubs[1].embedding_calls().iter().all(|call| call.texts().len() == 3), "only vecho's own texts");
}

#[tokio::test]
async fn replicas_that_begin_at_the_same_time_agree_on_one_reference() {
    let (redis, stubs) = (Redis::start(), [Stub::start(), Stub::start()]);
    retrain(&stubs[1]);
    let url = stubs[0].base_url();
    // Each replica prefers the first target of its list, so without an agreement each would have its own reference.
    let one = over([("a", &stubs[0]), ("b", &stubs[1])], &redis, &url).await;
    let other = over([("b", &stubs[1]), ("a", &stubs[0])], &redis, &url).await;
    // Each number of dimensions is a model of its own for the targets.
    for dimensions in 2..=8 {
        let (first, second) = tokio::join!(embed(&one, dimensions, "x"), embed(&other, dimensions, "y"));
        assert_eq!((first.status, second.status), (200, 200), "{first:?} {second:?}");
        let targets = [&first, &second].map(|answer| answer.header("x-vecho-target").map(str::to_owned));
        assert_eq!(targets[0], targets[1], "one reference for {dimensions} dimensions");
    }
}

#[tokio::test]
async fn after_a_purge_a_running_replica_takes_the_reference_of_one_that_started_later() {
    let (redis, stubs) = (Redis::start(), [Stub::start(), Stub::start()]);
    retrain(&stubs[1]);
    let url = stubs[0].base_url();
    let order = [("a", &stubs[0]), ("b", &stubs[1])];
    let running = over(order, &redis, &url).await;
    assert_eq!(embed(&running, 8, "x").await.header("x-vecho-target"), Some("a"));
    let purge = format!("http://{}/api/performance/cache?model=tiny", running.admin());
    assert_eq!(running.client.send(raw(Method::DELETE, &purge, "")).await.expect("an answer").status, 200);
    stubs[0].down().await;
    let later = over(order, &redis, &url).await;
    assert_eq!(embed(&later, 8, "y").await.header("x-vecho-target"), Some("b"), "no vectors of the other are left");
    stubs[0].up().await;
    assert_eq!(embed(&running, 8, "z").await.header("x-vecho-target"), Some("b"), "one cache, one kind of vectors");
}

#[tokio::test]
async fn a_purge_ends_the_references_of_other_replicas() {
    let (redis, stubs) = (Redis::start(), [Stub::start(), Stub::start()]);
    retrain(&stubs[1]);
    let url = stubs[0].base_url();
    let order = [("a", &stubs[0]), ("b", &stubs[1])];
    let (one, other) = (over(order, &redis, &url).await, over(order, &redis, &url).await);
    assert_eq!((embed(&one, 8, "x").await.status, embed(&other, 8, "y").await.status), (200, 200));
    stubs[0].down().await;
    assert!(embed(&other, 8, "z").await.status >= 500, "the target that is left gives other vectors");
    let purge = format!("http://{}/api/performance/cache?model=tiny", one.admin());
    assert_eq!(one.client.send(raw(Method::DELETE, &purge, "")).await.expect("an answer").status, 200);
    eventually("the purge reaches the other", async || embed(&other, 8, "z").await.status == 200).await;
    assert_eq!(embed(&one, 8, "w").await.header("x-vecho-target"), Some("b"));
}
