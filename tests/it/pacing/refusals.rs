//! Refusals that reach the caller: those that come before its deadline, and those that no wait helps against.

use std::time::{Duration, Instant};

use serde_json::json;

use super::ground::{calls_until_reset, many, one_call_in, text};
use crate::harness::client::Answer;
use crate::harness::stub::{Counted, Quota, Reported};
use crate::harness::{Behaviour, Front};

/// Upper bound of an answer without a wait, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(2);

fn retry_after(answer: &Answer) -> u64 {
    let value = answer.header("retry-after").unwrap_or_else(|| panic!("no retry-after: {answer:?}"));
    value.parse().unwrap_or_else(|_| panic!("not a number of seconds: {value}"))
}

#[tokio::test]
async fn a_turn_after_the_deadline_is_refused_without_a_call_and_with_the_true_wait() {
    let front = Front::with(&[("limits.request_timeout", "1s")]).await;
    front.stub.limit_rate(calls_until_reset(1.0, Duration::from_secs(6), Reported::OpenAi));
    let begun = Instant::now();
    assert_eq!(front.post(text("a")).send().await.status, 200);
    let refused = front.post(text("b")).send().await;
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    assert_eq!((refused.status, refused.error()), (429, ("requests".to_owned(), json!("rate_limit_exceeded"))));
    let wait = retry_after(&refused);
    assert!((4..=6).contains(&wait), "the limit is back after 6 s, but retry-after says {wait} s");
    assert_eq!(front.calls(), 1, "nothing is sent in vain");
    tokio::time::sleep(Duration::from_secs(wait)).await;
    assert_eq!(front.post(text("b")).send().await.status, 200, "it was refused {:?} ago", begun.elapsed());
    assert!(front.stub.quota_record().refused().is_empty());
}

#[tokio::test]
async fn the_service_s_own_refusal_reaches_the_caller_if_its_time_is_too_short() {
    let front = Front::with(&[("limits.request_timeout", "1s")]).await;
    front.stub.limit_rate(one_call_in(20.0, Reported::Azure));
    assert_eq!(front.post(text("a")).send().await.status, 200);
    let begun = Instant::now();
    let own = front.post(text("b")).send().await;
    assert_eq!((own.status, &own.json()["error"]["code"]), (429, &json!("429")), "{own:?}");
    assert_eq!((retry_after(&own), own.header("retry-after-ms").is_some()), (20, true));
    // The wait is known now, so further requests cost no call.
    let known = front.post(text("c")).send().await;
    assert_eq!((known.status, known.error().1), (429, json!("rate_limit_exceeded")));
    assert!((18..=20).contains(&retry_after(&known)), "{known:?}");
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    assert_eq!(front.calls(), 2);
}

#[tokio::test]
async fn a_refused_call_is_repeated_when_the_service_permits_it() {
    for reported in [Reported::Azure, Reported::RetryAfter, Reported::Nothing] {
        let front = Front::start().await;
        front.stub.limit_rate(one_call_in(2.0, reported));
        let begun = Instant::now();
        assert_eq!(front.post(text("a")).send().await.status, 200);
        assert_eq!(front.post(text("b")).send().await.status, 200, "{reported:?}");
        assert!(begun.elapsed() >= Duration::from_millis(1_900), "{:?}", begun.elapsed());
        let refused = front.stub.quota_record().refused().len();
        // Without a word of the service, the waits grow from a tenth of a second.
        let most = if reported == Reported::Nothing { 5 } else { 1 };
        assert!((1..=most).contains(&refused), "{reported:?}: {refused} refusals");
    }
}

#[tokio::test]
async fn refusals_that_no_wait_helps_against_reach_the_caller_at_once() {
    let front = Front::start().await;
    let body = json!({"error": {"message": "Rate limit reached", "type": "requests", "param": null,
        "code": "rate_limit_exceeded"}});
    let headers = vec![("x-should-retry", "false".to_owned())];
    let vetoed = Behaviour::Status { code: 429, headers, body: body.to_string() };
    for (name, behaviour, code) in
        [("vetoed", vetoed, "rate_limit_exceeded"), ("quota", Behaviour::Quota, "insufficient_quota")]
    {
        let (begun, calls) = (Instant::now(), front.calls());
        front.stub.next(behaviour);
        let refused = front.post(text(name)).send().await;
        assert_eq!((refused.status, refused.error().1), (429, json!(code)));
        assert_eq!(front.calls(), calls + 1, "{name} is not repeated");
        assert!(begun.elapsed() < AT_ONCE, "{name}: {:?}", begun.elapsed());
        assert_eq!(front.post(text(name)).send().await.status, 200, "{name}");
    }
}

#[tokio::test]
async fn a_text_that_is_larger_than_the_whole_limit_is_refused_at_once() {
    let front = Front::start().await;
    let counted = Counted::Bucket { capacity: 1.0 };
    front.stub.limit_rate(Quota { requests: 60.0, tokens: 100.0, counted, reported: Reported::OpenAi });
    let begun = Instant::now();
    let refused = front.post(text(&"a b c d e f g h ".repeat(30))).send().await;
    assert_eq!(refused.status, 429);
    assert!(refused.json()["error"]["message"].as_str().is_some_and(|text| text.starts_with("Request too large")));
    assert_eq!(front.calls(), 1);
    assert_eq!(front.post(text("short")).send().await.status, 200);
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn configured_limits_hold_without_any_word_of_the_service() {
    // A sixth of the limit may be used at once: two calls. A further one comes every five seconds.
    let front = Front::with(&[("pace.requests_per_minute", "12"), ("limits.request_timeout", "2s")]).await;
    front.stub.limit_rate(Quota { requests: 1e6, ..one_call_in(1.0, Reported::Nothing) });
    for name in ["a", "b"] {
        assert_eq!(front.post(text(name)).send().await.status, 200);
    }
    let refused = front.post(text("c")).send().await;
    assert_eq!((refused.status, refused.error().1), (429, json!("rate_limit_exceeded")));
    assert!((1..=5).contains(&retry_after(&refused)), "{refused:?}");
    assert_eq!(front.calls(), 2);
    tokio::time::sleep(Duration::from_secs(retry_after(&refused))).await;
    assert_eq!(front.post(text("c")).send().await.status, 200);
}

#[tokio::test]
async fn at_most_the_configured_number_of_calls_is_in_flight() {
    let front = Front::with(&[("pace.concurrent", "2"), ("batch.max_inputs", "16")]).await;
    front.stub.always(Behaviour::Gate);
    let requests: Vec<_> = (0..6).map(|number| front.post(many(&format!("r{number}"))).send_meanwhile()).collect();
    front.stub.held(2).await;
    front.reaches(r#"vecho_pace_waiting{priority="bulk"}"#, 4.0).await;
    assert_eq!(front.calls(), 2);
    front.stub.release(100);
    for request in requests {
        assert_eq!(request.await.expect("the request does not panic").status, 200);
    }
    front.falls_to_zero(r#"vecho_pace_waiting{priority="bulk"}"#).await;
}

#[tokio::test]
async fn a_long_call_in_flight_does_not_keep_refused_calls_from_their_next_try() {
    let front = Front::start().await;
    front.stub.when(|call| call.texts().contains(&"slow".to_owned()), Behaviour::Gate);
    let slow = front.post(text("slow")).send_meanwhile();
    front.stub.held(1).await;
    for _ in 0..3 {
        front.stub.next(refusal(&[]));
    }
    let begun = Instant::now();
    assert_eq!(front.post(text("b")).send().await.status, 200);
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    front.stub.release_all();
    assert_eq!(slow.await.expect("it must end").status, 200);
}

#[tokio::test]
async fn a_refusal_that_must_not_be_repeated_holds_no_other_call_back() {
    let front = Front::start().await;
    front.stub.next(refusal(&[("x-should-retry", "false"), ("retry-after", "30")]));
    let begun = Instant::now();
    assert_eq!(front.post(text("a")).send().await.status, 429);
    assert_eq!(front.post(text("b")).send().await.status, 200);
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_time_of_nothing_is_no_reason_for_a_flood() {
    let front = Front::with(&[("limits.request_timeout", "4s")]).await;
    front.stub.always(Behaviour::RateLimit { retry_after_ms: 0 });
    assert_eq!(front.post(text("a")).send().await.status, 429);
    assert!(front.calls() <= 12, "{} calls in four seconds", front.calls());
}

#[tokio::test]
async fn a_text_that_is_always_refused_hardly_delays_others() {
    let front = Front::with(&[("limits.request_timeout", "8s")]).await;
    let refused = Behaviour::RateLimit { retry_after_ms: 100 };
    front.stub.when(|call| call.texts().contains(&"refused".to_owned()), refused);
    let refused = front.post(text("refused")).send_meanwhile();
    front.stub.arrived(1).await;
    for number in 0.. {
        let begun = Instant::now();
        assert_eq!(front.post(text(&format!("good {number}"))).send().await.status, 200);
        assert!(begun.elapsed() < 3 * AT_ONCE, "{:?}", begun.elapsed());
        if refused.is_finished() {
            break;
        }
    }
    assert_eq!(refused.await.expect("it must end").status, 429, "the service's own answer");
}

/// A refusal for the rate with these headers.
fn refusal(headers: &[(&'static str, &str)]) -> Behaviour {
    let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    Behaviour::Status { code: 429, headers, body: r#"{"error":{"message":"slow down"}}"#.to_owned() }
}

#[tokio::test]
async fn one_refusal_that_names_an_hour_does_not_stop_the_other_calls() {
    let front = Front::with(&[("limits.request_timeout", "20s")]).await;
    front.stub.next(Behaviour::RateLimit { retry_after_ms: 3_600_000 });
    let requests: Vec<_> = (0..8).map(|number| front.post(text(&number.to_string())).send_meanwhile()).collect();
    for request in requests {
        assert_eq!(request.await.expect("the request does not panic").status, 200);
    }
}

#[tokio::test]
async fn a_request_that_was_cut_is_refused_with_the_time_that_all_of_it_takes() {
    // A thousand tokens at once, and a hundred a second.
    let settings = [("pace.tokens_per_minute", "6000"), ("limits.request_timeout", "4s")];
    let front = Front::with(&settings).await;
    let texts: Vec<String> = (0..40).map(|number| format!("{number} {}", "word ".repeat(80))).collect();
    let refused = front.post(json!({"model": "tiny", "input": texts}).to_string()).send().await;
    assert_eq!((refused.status, refused.error().1), (429, json!("rate_limit_exceeded")));
    assert!((20..=45).contains(&retry_after(&refused)), "{refused:?}");
}

#[tokio::test]
async fn a_request_that_waits_for_other_calls_is_refused_with_a_time_that_is_possible() {
    // The limit of tokens has room for all of it, but another call is in flight.
    let settings = [("pace.tokens_per_minute", "60000"), ("pace.concurrent", "1"), ("limits.request_timeout", "3s")];
    let front = Front::with(&settings).await;
    front.stub.always(Behaviour::Gate);
    let first = front.post(text("first")).send_meanwhile();
    front.stub.held(1).await;
    // Bulk calls have at most 8,000 tokens; these texts have about 9,000.
    let texts: Vec<String> = (0..68).map(|number| format!("{number} {}", "word ".repeat(75))).collect();
    let refused = front.post(json!({"model": "tiny", "input": texts}).to_string()).send().await;
    assert_eq!((refused.status, refused.error().1), (429, json!("rate_limit_exceeded")));
    assert!((1..=60).contains(&retry_after(&refused)), "{refused:?}");
    first.abort();
}
