//! Calls that targets refuse for their rate, and calls after failures of all targets.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Group, status};
use crate::harness::Behaviour;

const WAITING: &str = r#"vecho_pace_waiting{priority="interactive"}"#;

const ONE_ATTEMPT: (&str, &str) = ("retry.max_attempts", "1");

/// Starts two targets, and lets each of them answer once, so that both are known to agree and neither has failed.
async fn two_that_agree(settings: &[(&str, &str)]) -> Group {
    let group = Group::with(2, |_| json!({}), settings).await;
    group.embed(&["first"]).await;
    group.stubs[0].next(Behaviour::Gate);
    let other = async {
        group.stubs[0].held(1).await;
        let answer = group.embed(&["third"]).await;
        group.stubs[0].release(1);
        answer
    };
    let (answer, other) = tokio::join!(group.embed(&["second"]), other);
    assert_eq!([answer.header("x-vecho-target"), other.header("x-vecho-target")], [Some("a"), Some("b")]);
    group
}

fn refusal(retry_after_ms: u64) -> Behaviour {
    Behaviour::RateLimit { retry_after_ms }
}

#[tokio::test]
async fn a_call_that_every_target_refuses_goes_to_the_one_that_is_free_first() {
    let group = two_that_agree(&[]).await;
    group.stubs[0].next(refusal(300));
    group.stubs[1].next(refusal(4_000));
    let begun = Instant::now();
    let answer = group.embed(&["x"]).await;
    assert_eq!((answer.status, answer.header("x-vecho-target")), (200, Some("a")), "{answer:?}");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_target_that_fails_after_its_refusal_is_not_called_again() {
    let group = two_that_agree(&[ONE_ATTEMPT]).await;
    let before = group.calls(0).len();
    group.stubs[0].next(refusal(200));
    group.stubs[0].next(status(503, "{}"));
    group.stubs[1].next(refusal(1_500));
    let answer = group.embed(&["x"]).await;
    assert_eq!((answer.status, answer.header("x-vecho-target")), (200, Some("b")), "{answer:?}");
    assert_eq!(group.calls(0).len() - before, 2);
}

#[tokio::test]
async fn new_calls_wait_in_the_lines_of_targets_that_have_refused_others() {
    let group = two_that_agree(&[ONE_ATTEMPT]).await;
    for stub in &group.stubs {
        stub.next(refusal(2_000));
    }
    let before = group.calls(0).len() + group.calls(1).len();
    let others = async {
        group.reaches(WAITING, 1.0).await;
        let more = async {
            group.reaches(WAITING, 2.0).await;
            assert_eq!(group.calls(0).len() + group.calls(1).len() - before, 2, "it waits before any call");
        };
        tokio::join!(group.embed(&["new"]), more).0
    };
    let (refused, new) = tokio::join!(group.embed(&["refused"]), others);
    assert_eq!([refused.status, new.status], [200; 2], "{refused:?} {new:?}");
}

#[tokio::test]
async fn a_waiting_call_keeps_its_place_while_a_failed_target_is_left_alone() {
    let group = two_that_agree(&[ONE_ATTEMPT]).await;
    let headers = vec![("retry-after", "60".to_owned())];
    group.stubs[0].next(Behaviour::Status { code: 503, headers, body: "{}".to_owned() });
    group.stubs[1].next(refusal(2_500));
    let new = async {
        group.reaches(WAITING, 1.0).await;
        group.embed(&["new"]).await
    };
    for answer in <[_; 2]>::from(tokio::join!(group.embed(&["refused"]), new)) {
        assert_eq!((answer.status, answer.header("x-vecho-target")), (200, Some("b")), "{answer:?}");
    }
    let waits = group.inside.metric(r#"vecho_pace_wait_seconds_count{priority="interactive"}"#).await;
    assert_eq!(waits.to_bits(), 2.0_f64.to_bits(), "{waits} waits of two calls");
}

#[tokio::test]
async fn without_pacing_a_target_with_a_limit_is_left_alone_for_the_time_that_it_names() {
    let limited = |_| json!({"requests_per_minute": 6_000});
    let group = Group::with(1, limited, &[("pace.mode", "off"), ONE_ATTEMPT]).await;
    group.embed(&["x"]).await;
    group.stubs[0].next(refusal(1_500));
    assert_eq!(group.embed(&["refused"]).await.status, 429);
    let begun = Instant::now();
    assert_eq!(group.embed(&["y"]).await.status, 200);
    assert!(begun.elapsed() > Duration::from_millis(1_200), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn if_all_targets_have_failed_the_one_that_failed_first_is_tried_again_at_once() {
    let group = two_that_agree(&[ONE_ATTEMPT]).await;
    for stub in &group.stubs {
        stub.next(status(503, "{}"));
    }
    assert!(group.embed(&["fails"]).await.status >= 500);
    let answer = group.embed(&["x"]).await;
    assert_eq!((answer.status, answer.header("x-vecho-target")), (200, Some("a")), "{answer:?}");
}

#[tokio::test]
async fn calls_that_wait_for_a_target_end_as_soon_as_its_breaker_opens() {
    let breaker = [("breaker.failures", "1"), ("breaker.open_for", "60s"), ("breaker.max_open", "60s")];
    let group = Group::with(1, |_| json!({}), &[&breaker[..], &[ONE_ATTEMPT]].concat()).await;
    group.embed(&["x"]).await;
    group.stubs[0].next(refusal(30_000));
    // The first call waits after its refusal, the second one for its first turn.
    let new = async {
        group.reaches(WAITING, 1.0).await;
        group.embed(&["new"]).await
    };
    let outage = async {
        group.reaches(WAITING, 2.0).await;
        group.stubs[0].down().await;
        let begun = Instant::now();
        // A call on a connection that was closed at the same moment says nothing about the target.
        for text in ["x", "y", "z"] {
            group.inside.embed(json!({"model": "other", "input": text})).await;
        }
        begun
    };
    let (refused, new, begun) = tokio::join!(group.embed(&["refused"]), new, outage);
    assert!(refused.status >= 500 && new.status >= 500, "{refused:?} {new:?}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_refusal_of_all_targets_reaches_the_caller_if_its_time_is_too_short() {
    let group = two_that_agree(&[("limits.request_timeout", "5s"), ONE_ATTEMPT]).await;
    for stub in &group.stubs {
        stub.next(refusal(20_000));
    }
    let begun = Instant::now();
    let answer = group.embed(&["x"]).await;
    assert_eq!((answer.status, answer.header("retry-after-ms")), (429, Some("20000")), "{answer:?}");
    // The wait is known, so a further request costs no call and names it as well.
    let answer = group.embed(&["y"]).await;
    let wait: u64 = answer.header("retry-after").and_then(|wait| wait.parse().ok()).unwrap_or_default();
    assert!(answer.status == 429 && (15..=20).contains(&wait), "{answer:?}");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_refusal_without_a_call_names_the_time_of_the_target_that_is_free_first() {
    // One call in a minute at the first target, one in fifteen seconds at the second one.
    let limits = |place| json!({"requests_per_minute": if place == 0 { 1 } else { 4 }});
    let group = Group::with(2, limits, &[("limits.request_timeout", "2s")]).await;
    // The comparisons use up both limits.
    let answer = group.embed(&["x"]).await;
    let wait: u64 = answer.header("retry-after").and_then(|wait| wait.parse().ok()).unwrap_or_default();
    assert!(answer.status == 429 && (5..=15).contains(&wait), "{answer:?}");
}
