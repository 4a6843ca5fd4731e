//! Limits belong to one credential and one model; the others do not wait for them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::ground::{of_model, one_call_in, text};
use crate::harness::front::texts_of;
use crate::harness::stub::Reported;
use crate::harness::{Front, Inside, Stub};

const WAITING: &str = r#"vecho_pace_waiting{priority="interactive"}"#;

/// Upper bound of an answer without a wait, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(3);

#[tokio::test]
async fn credentials_and_models_do_not_wait_for_each_other() {
    let front = Front::start().await;
    front.stub.limit_rate(one_call_in(30.0, Reported::Azure));
    assert_eq!(front.post(text("a")).key("one").send().await.status, 200);
    let waits = front.post(text("b")).key("one").send_meanwhile();
    front.reaches(WAITING, 1.0).await;
    // The limit does not depend on the other members of a request.
    let shorter = json!({"model": "tiny", "input": "b", "dimensions": 4}).to_string();
    let waits_too = front.post(shorter).key("one").send_meanwhile();
    front.reaches(WAITING, 2.0).await;
    let (begun, calls) = (Instant::now(), front.calls());
    assert_eq!(calls, 2);
    assert_eq!(front.post(text("c")).key("two").send().await.status, 200);
    assert_eq!(front.post(of_model("other", "d")).key("one").send().await.status, 200);
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    assert_eq!(front.calls(), calls + 2);
    assert!(!waits.is_finished() && !waits_too.is_finished());
}

fn target(name: &str, stub: &Stub) -> Value {
    json!({"name": name, "url": stub.base_url(), "api_key": format!("sk-{name}")})
}

#[tokio::test]
async fn a_refused_call_moves_to_another_target_at_once_and_waits_only_if_all_are_limited() {
    let (one, other) = (Stub::start(), Stub::start());
    let targets = json!([target("a", &one), target("b", &other)]).to_string();
    let inside = Inside::start(&one.base_url(), &[("targets", &targets), ("fallback.mode", "error")]).await;
    assert_eq!(inside.embed(texts_of(&["first"])).await.header("x-vecho-target"), Some("a"));
    one.down().await;
    assert_eq!(inside.embed(texts_of(&["second"])).await.header("x-vecho-target"), Some("b"));
    // Both have shown by now that their vectors agree.
    one.up().await;
    one.limit_rate(one_call_in(30.0, Reported::Azure));
    // The first one accepts one call and refuses the next, which moves on.
    let since = Instant::now();
    for number in 0.. {
        let begun = Instant::now();
        let answer = inside.embed(texts_of(&[&format!("text {number}")])).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
        if !one.quota_record().refused().is_empty() {
            assert_eq!(answer.header("x-vecho-target"), Some("b"), "text {number}");
            break;
        }
        // After its failure it gets no calls for a second or two.
        assert!(since.elapsed() < Duration::from_secs(20), "it never calls the first one");
    }
    assert_eq!(inside.embed(texts_of(&["next"])).await.header("x-vecho-target"), Some("b"));
    assert_eq!(one.quota_record().refused().len(), 1, "after one refusal nothing is tried there");
    other.limit_rate(one_call_in(3.0, Reported::Azure));
    let begun = Instant::now();
    for text in ["x", "y"] {
        let answer = inside.embed(texts_of(&[text])).await;
        let took = begun.elapsed();
        assert_eq!((answer.status, answer.header("x-vecho-target")), (200, Some("b")), "{text} after {took:?}");
    }
    assert!(begun.elapsed() >= Duration::from_millis(2_500), "{:?}", begun.elapsed());
}
