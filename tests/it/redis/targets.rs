//! Several targets behind several replicas: all compare with the same vectors.

use serde_json::{Value, json};

use super::replica;
use crate::harness::client::Answer;
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
