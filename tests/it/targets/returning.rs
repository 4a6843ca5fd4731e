//! Targets that a call returns to or passes by: after failures, and during slow or refused comparisons.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Group, other_weights, status};
use crate::harness::{Behaviour, Stub, eventually};

const IN_FLIGHT: &str = "vecho_upstream_in_flight";

impl Group {
    /// Starts two targets whose vectors are known to agree.
    async fn agreed(settings: &[(&str, &str)]) -> Self {
        let group = Self::with(2, |_| json!({}), settings).await;
        group.embed(&["compares the first"]).await;
        group.stubs[0].down().await;
        group.embed(&["compares the second"]).await;
        group.stubs[0].up().await;
        group
    }

    async fn has_in_flight(&self, calls: f64) {
        eventually(IN_FLIGHT, async || self.inside.metric(IN_FLIGHT).await.to_bits() == calls.to_bits()).await;
    }

    /// Sends a text that shares no call with others.
    async fn alone(&self, text: &str) -> (u16, Option<String>) {
        let answer = self.inside.embed(json!({"model": "tiny", "input": text, "user": text})).await;
        (answer.status, answer.header("x-vecho-target").map(str::to_owned))
    }
}

fn served_by(target: &str) -> (u16, Option<String>) {
    (200, Some(target.to_owned()))
}

#[tokio::test]
async fn a_call_returns_to_a_target_that_failed_if_the_other_one_limits_the_rate() {
    let group = Group::agreed(&[]).await;
    eventually("the first target serves", async || {
        group.alone(&format!("{:?}", Instant::now())).await == served_by("a")
    })
    .await;
    group.stubs[1].always(Behaviour::RateLimit { retry_after_ms: 3_600_000 });
    group.stubs[0].next(status(503, "{}"));
    assert_eq!(group.alone("fails once").await, served_by("a"));
    group.stubs[0].always(status(503, "{}"));
    assert!(group.alone("fails each time").await.0 > 200);
    group.stubs[0].always(Behaviour::Normal);
    assert_eq!(group.alone("after failures").await, served_by("a"), "it failed a moment ago, and works");
}

#[tokio::test]
async fn of_two_refusals_callers_get_the_one_with_the_shorter_time() {
    for times in [[40_000, 400_000], [400_000, 40_000]] {
        let group = Group::agreed(&[("limits.request_timeout", "5s")]).await;
        eventually("the first target serves", async || {
            group.alone(&format!("{:?}", Instant::now())).await == served_by("a")
        })
        .await;
        for (stub, retry_after_ms) in group.stubs.iter().zip(times) {
            stub.always(Behaviour::RateLimit { retry_after_ms });
        }
        let answer = group.embed(&["refused"]).await;
        assert_eq!((answer.status, answer.header("retry-after")), (429, Some("40")), "{times:?}");
    }
}

#[tokio::test]
async fn a_target_that_disagrees_after_a_refused_comparison_is_not_waited_for() {
    let group = Group::with(2, |_| json!({}), &[("limits.request_timeout", "5s")]).await;
    group.embed(&["x"]).await;
    group.stubs[0].always(Behaviour::RateLimit { retry_after_ms: 60_000 });
    group.stubs[1].next(Behaviour::RateLimit { retry_after_ms: 300 });
    group.stubs[1].always(other_weights());
    assert_eq!(group.embed(&["y"]).await.status, 429);
    group.has_in_flight(0.0).await;
}

#[tokio::test]
async fn a_comparison_that_takes_long_delays_no_other_call() {
    let group = Group::start(2).await;
    group.embed(&["x"]).await;
    for stub in &group.stubs {
        stub.always(Behaviour::Gate);
    }
    let first = async { group.alone("first").await };
    let second = async {
        group.stubs[0].held(1).await;
        group.alone("second").await
    };
    let others = async {
        // The second call has found the first target busy, and compares the other one.
        group.stubs[1].held(1).await;
        group.stubs[0].always(Behaviour::Normal);
        for text in ["third", "fourth"] {
            assert_eq!(group.alone(text).await, served_by("a"));
        }
        assert_eq!(group.stubs[1].held_now(), 1, "it still compares");
        group.stubs[1].always(Behaviour::Normal);
        group.stubs.iter().for_each(Stub::release_all);
    };
    let (first, second, ()) = tokio::join!(first, second, others);
    assert_eq!((first.0, second.0), (200, 200));
}

#[tokio::test]
async fn calls_that_wait_for_one_comparison_share_its_failure() {
    let group = Group::with(1, |_| json!({}), &[("retry.max_attempts", "1")]).await;
    group.stubs[0].always(Behaviour::All(vec![Behaviour::Gate, status(503, "{}")]));
    let texts = ["a", "b", "c", "d", "e", "f"];
    let requests = async { futures_util::future::join_all(texts.map(|text| group.alone(text))).await };
    let release = async {
        group.stubs[0].held(1).await;
        group.has_in_flight(6.0).await;
        group.stubs[0].release_all();
        group.stubs[0].always(status(503, "{}"));
    };
    let (answers, ()) = tokio::join!(requests, release);
    assert!(answers.iter().all(|(status, _)| *status >= 500), "{answers:?}");
    assert_eq!(group.stubs[0].embedding_calls().len(), 1);
}

#[tokio::test]
async fn calls_that_fail_together_hold_a_target_as_long_as_one_failure() {
    let weight = |place| json!({"weight": if place == 0 { 100 } else { 1 }});
    let group = Group::with(2, weight, &[("retry.max_attempts", "1")]).await;
    group.embed(&["x"]).await;
    group.stubs[0].always(Behaviour::All(vec![Behaviour::Gate, status(503, "{}")]));
    let texts = ["a", "b", "c", "d", "e", "f", "g"];
    let requests = async { futures_util::future::join_all(texts.map(|text| group.alone(text))).await };
    let fail = async {
        group.stubs[0].held(texts.len()).await;
        group.stubs[0].release_all();
        group.stubs[0].always(Behaviour::Normal);
    };
    let (answers, ()) = tokio::join!(requests, fail);
    assert!(answers.iter().all(|answer| *answer == served_by("b")), "{answers:?}");
    let begun = Instant::now();
    eventually("the first target serves", async || {
        group.alone(&format!("{:?}", begun.elapsed())).await == served_by("a")
    })
    .await;
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}
