//! Queues of waiting calls: their order among callers, and their length.

use std::time::{Duration, Instant};

use serde_json::json;

use super::ground::text;
use crate::harness::client::Answer;
use crate::harness::{Behaviour, Front, eventually};

/// Returns a request whose call carries no other request's texts, because its vectors have a length of their own.
fn alone(name: &str, dimensions: usize) -> String {
    json!({"model": "tiny", "input": [name], "dimensions": dimensions}).to_string()
}

#[tokio::test]
async fn callers_that_share_a_credential_take_turns() {
    let front = Front::with(&[("upstream.api_key", "sk-own"), ("pace.concurrent", "1")]).await;
    front.stub.always(Behaviour::Gate);
    let mut requests: Vec<_> =
        (1..=8).map(|number| front.post(alone("many", number)).key("many").send_meanwhile()).collect();
    let waiting = r#"vecho_pace_waiting{priority="interactive"}"#;
    front.reaches(waiting, 7.0).await;
    requests.push(front.post(alone("few", 9)).key("few").send_meanwhile());
    front.reaches(waiting, 8.0).await;
    front.stub.release(9);
    for request in requests {
        assert_eq!(request.await.expect("the request does not panic").status, 200);
    }
    let sent = front.texts_sent();
    let place = sent.iter().position(|texts| texts == &["few"]).expect("it is sent");
    assert!(place <= 3, "{sent:?}");
}

#[tokio::test]
async fn requests_behind_a_queue_that_is_too_long_are_refused_in_time() {
    // Two calls at once, and one every five seconds.
    let front = Front::with(&[("pace.requests_per_minute", "12"), ("limits.request_timeout", "6s")]).await;
    let begun = Instant::now();
    let requests: Vec<_> = (1..=8).map(|number| front.post(alone("x", number)).send_meanwhile()).collect();
    let mut answers = Vec::new();
    for request in requests {
        answers.push(request.await.expect("the request does not panic"));
    }
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let (served, refused): (Vec<Answer>, Vec<Answer>) = answers.into_iter().partition(|answer| answer.status == 200);
    assert_eq!((served.len(), front.calls()), (3, 3));
    for answer in refused {
        assert_eq!((answer.status, answer.error().1), (429, json!("rate_limit_exceeded")));
        let wait: u64 = answer.header("retry-after").and_then(|wait| wait.parse().ok()).unwrap_or_default();
        assert!((1..=25).contains(&wait), "five calls more need 25 s at most: {answer:?}");
    }
    front.falls_to_zero(r#"vecho_pace_waiting{priority="interactive"}"#).await;
    front.falls_to_zero("vecho_upstream_queued_inputs").await;
}

#[tokio::test]
async fn requests_that_share_a_call_wait_for_no_turn_of_their_own() {
    let front = Front::with(&[("pace.concurrent", "1")]).await;
    front.stub.always(Behaviour::Gate);
    let mut requests = vec![front.post(text("first")).send_meanwhile()];
    front.stub.held(1).await;
    requests.extend((0..12).map(|number| front.post(text(&format!("text {number}"))).send_meanwhile()));
    let (waiting, queued) = (r#"vecho_pace_waiting{priority="interactive"}"#, "vecho_upstream_queued_inputs");
    front.reaches(waiting, 12.0).await;
    // Each call carries more of them.
    for calls in 2..13 {
        front.stub.release(1);
        eventually("the next call", async || front.calls() == calls).await;
        let are_equal = async || front.metric(waiting).await.to_bits() == front.metric(queued).await.to_bits();
        eventually("requests that wait for the next call, and no others", are_equal).await;
        if front.texts_sent().concat().len() == 13 {
            break;
        }
    }
    front.stub.release(1);
    assert!(front.calls() < 8, "they share calls");
    for request in requests {
        assert_eq!(request.await.expect("the request does not panic").status, 200);
    }
}

#[tokio::test]
async fn a_refusal_names_the_time_of_the_calls_that_waiting_requests_share() {
    // One call at once, and one every ten seconds.
    let front = Front::with(&[("pace.requests_per_minute", "6"), ("limits.request_timeout", "2s")]).await;
    assert_eq!(front.post(text("first")).send().await.status, 200);
    let requests: Vec<_> = (0..60).map(|number| front.post(text(&format!("{number}"))).send_meanwhile()).collect();
    for request in requests {
        let answer = request.await.expect("the request does not panic");
        let wait: u64 = answer.header("retry-after").and_then(|wait| wait.parse().ok()).unwrap_or_default();
        assert!(answer.status == 429 && (1..=60).contains(&wait), "six calls carry all of them: {answer:?}");
    }
}
