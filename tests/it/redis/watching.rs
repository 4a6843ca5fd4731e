//! Checks of models by several replicas: one asks in each period, and all learn of a change.

use std::time::{Duration, Instant};

use super::replica;
use crate::harness::client::Answer;
use crate::harness::front::{texts_of, tiny};
use crate::harness::redis::Redis;
use crate::harness::stub::{Call, Stub};
use crate::harness::{Behaviour, Client, Inside, Vecho, eventually};

const HOUR_MS: u64 = 60 * 60 * 1_000;
/// Least time of six periods of a second, less the time in which a test looks.
const LEAST: Duration = Duration::from_millis(5_900);

fn is_canary(call: &Call) -> bool {
    call.texts().first().is_some_and(|text| text.starts_with("The quick brown fox"))
}

fn canaries(stub: &Stub) -> usize {
    stub.embedding_calls().iter().filter(|call| is_canary(call)).count()
}

/// Makes a server keep the model's name and have other weights from now on.
fn retrain(stub: &Stub) {
    let renamed = Behaviour::ModelName("tiny".to_owned());
    stub.always(Behaviour::All(vec![Behaviour::OtherModel("retrained".to_owned()), renamed]));
}

fn retrained(text: &str) -> Vec<Vec<f32>> {
    vec![Stub::vector("retrained", None, text)]
}

/// Starts two processes that check every second, share a Redis, and have answered a text of their own each.
async fn processes(stub: &Stub, redis: &Redis) -> [Vecho; 2] {
    let environment = [
        ("VECHO_REDIS_URL", &*redis.url()),
        ("VECHO_REDIS_TIMEOUT", "5s"),
        ("VECHO_UPSTREAM_API_KEY", "sk-own"),
        ("VECHO_DRIFT_EVERY", "1s"),
        ("VECHO_DRIFT_ACTION", "refetch"),
        ("VECHO_DISK_ENABLED", "false"),
    ];
    let processes = [(); 2].map(|()| Vecho::start_with(&stub.base_url(), &environment));
    for (process, text) in processes.iter().zip(["one", "other"]) {
        process.logged("its tier is up").await;
        assert_eq!(embed(process, text).await.vectors(), tiny(&[text]));
    }
    processes
}

async fn embed(process: &Vecho, text: &str) -> Answer {
    Client::new().post(&format!("{}/embeddings", process.base_url()), &texts_of(&[text])).await
}

#[tokio::test]
async fn of_two_processes_one_asks_in_each_period() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let _processes = processes(&stub, &redis).await;
    let reached = async |count: usize| {
        eventually(&format!("{count} checks"), async || canaries(&stub) >= count).await;
        Instant::now()
    };
    let begun = reached(1).await;
    // Each call follows the answer to the one before by a period. Two replicas that ask for themselves need half.
    let took = reached(7).await - begun;
    assert!(took >= LEAST, "{took:?} for six periods");
}

#[tokio::test]
async fn a_change_of_the_model_is_noticed_by_both_processes() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let processes = processes(&stub, &redis).await;
    eventually("there is a reference", async || canaries(&stub) >= 1).await;
    retrain(&stub);
    for (process, text) in processes.iter().zip(["one", "other"]) {
        // No other process has answered this text, so its entry ends only if this one learns of the change.
        let is_new = async || embed(process, text).await.vectors() == retrained(text);
        eventually(&format!("{text:?} is fetched again"), is_new).await;
    }
    let found = "the model's vectors have changed behind its name";
    let count = processes.iter().filter(|process| process.log().contains(found)).count();
    assert_eq!(count, 1, "one finds it, and the other learns of it by the reference or by an entry");
}

/// Starts a replica that checks every hour.
async fn hourly(stub: &Stub, redis: &Redis, action: &str) -> Inside {
    let settings =
        [("drift.every", "1h"), ("drift.action", action), ("upstream.api_key", "sk-own"), ("redis.lease", "20s")];
    replica(stub, &redis.url(), &settings).await
}

async fn checks(replicas: &[Inside; 2], result: &str) -> f64 {
    let series = format!(r#"vecho_model_checks_total{{result="{result}"}}"#);
    replicas[0].metric(&series).await + replicas[1].metric(&series).await
}

/// Waits until this many checks of both replicas have ended with a result. A replica that waits for the other one looks
/// again after a second.
async fn ends(replicas: &[Inside; 2], result: &str, count: f64) {
    eventually(&format!("{count} checks with result {result}"), async || {
        pass(replicas, 100);
        checks(replicas, result).await >= count
    })
    .await;
}

fn pass(replicas: &[Inside; 2], ms: u64) {
    for replica in replicas {
        replica.clock.advance_ms(ms);
    }
}

#[tokio::test]
async fn replicas_that_are_due_at_the_same_time_wait_for_the_one_that_asks() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let replicas = [hourly(&stub, &redis, "warn").await, hourly(&stub, &redis, "warn").await];
    for replica in &replicas {
        replica.embed(texts_of(&["x"])).await;
    }
    let [mut asked, mut told] = [0.0, 0.0];
    ends(&replicas, "first", 1.0).await;
    for _ in 0..3 {
        told += 1.0;
        ends(&replicas, "elsewhere", told).await;
        let before = canaries(&stub);
        stub.always(Behaviour::Gate);
        redis.cli(&["config", "resetstat"]);
        pass(&replicas, HOUR_MS);
        stub.held(1).await;
        // Each replica requests the lease once it is due.
        eventually("the other replica is due, too", async || redis.calls("set") >= 2 || stub.held_now() >= 2).await;
        assert_eq!((canaries(&stub), stub.held_now()), (before + 1, 1));
        stub.always(Behaviour::Normal);
        stub.release_all();
        asked += 1.0;
        ends(&replicas, "same", asked).await;
    }
    assert_eq!(canaries(&stub), 4, "one in each period");
}

#[tokio::test]
async fn with_warn_each_replica_reports_the_change() {
    let (redis, stub) = (Redis::start(), Stub::start());
    let replicas = [hourly(&stub, &redis, "warn").await, hourly(&stub, &redis, "warn").await];
    for replica in &replicas {
        replica.embed(texts_of(&["x"])).await;
    }
    ends(&replicas, "first", 1.0).await;
    retrain(&stub);
    pass(&replicas, HOUR_MS);
    ends(&replicas, "drifted", 2.0).await;
    for replica in &replicas {
        assert_eq!(replica.metric(r#"vecho_model_drifted{model="tiny"}"#).await.to_bits(), 1.0_f64.to_bits());
    }
}
