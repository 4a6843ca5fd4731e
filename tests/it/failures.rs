//! The four classes of failure: which ones are retried, which ones are returned at once, and their error bodies.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::client::Answer;
use crate::harness::{Behaviour, Inside, Stub, eventually};

/// Disables the fallback, and makes retries fast enough for a test.
const PLAIN: [(&str, &str); 4] =
    [("fallback.mode", "error"), ("retry.base_wait", "1ms"), ("retry.max_wait", "2ms"), ("breaker.failures", "0")];

async fn start(stub: &Stub, more: &[(&str, &str)]) -> Inside {
    Inside::start(&stub.base_url(), &[&PLAIN[..], more].concat()).await
}

fn ask(text: &str) -> Value {
    json!({"model": "tiny", "input": text})
}

fn status(code: u16, headers: &[(&'static str, &str)], body: &str) -> Behaviour {
    let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    Behaviour::Status { code, headers, body: body.to_owned() }
}

fn assert_right(answer: &Answer, text: &str) {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.vectors(), [Stub::vector("tiny", None, text)]);
}

#[tokio::test]
async fn every_kind_of_unavailability_is_retried() {
    let stub = Stub::start();
    let vecho = start(&stub, &[]).await;
    let mut kinds = vec![Behaviour::HangUp, Behaviour::CutBody];
    kinds.extend([500, 502, 503, 504, 520].map(|code| status(code, &[], "{}")));
    for (number, kind) in kinds.into_iter().enumerate() {
        let (before, text) = (stub.embedding_calls().len(), format!("text {number}"));
        let shown = format!("{kind:?}");
        stub.next(kind);
        assert_right(&vecho.embed(ask(&text)).await, &text);
        assert_eq!(stub.embedding_calls().len() - before, 2, "{shown}: one repetition");
        assert_right(&vecho.embed(ask(&format!("between {number}"))).await, &format!("between {number}"));
    }
    let retried = vecho.metric(r#"vecho_upstream_retries_total{reason="unavailable"}"#).await
        + vecho.metric(r#"vecho_upstream_retries_total{reason="reused_connection"}"#).await;
    assert!((retried - 7.0).abs() < f64::EPSILON, "{retried}");
}

#[tokio::test]
async fn a_call_beyond_a_configured_timeout_is_neither_retried_nor_mocked() {
    let stub = Stub::start();
    let settings = [("upstream.headers_timeout", "300ms"), ("fallback.mode", "mock"), ("breaker.failures", "1")];
    let vecho = start(&stub, &settings).await;
    assert_right(&vecho.embed(ask("quick")).await, "quick");
    stub.next(Behaviour::Gate);
    let answer = vecho.embed(ask("x")).await;
    assert_eq!((answer.status, answer.error().1), (504, json!("upstream_timeout")));
    let repeated = async { assert_right(&vecho.embed(ask("x")).await, "x") };
    let meanwhile = async {
        vecho.embed(ask("quick")).await;
        stub.release(1);
    };
    tokio::join!(repeated, meanwhile);
    assert_eq!(stub.embedding_calls().len(), 2, "the call goes on, and its answer is stored");
    let vecho = start(&stub, &[("upstream.call_timeout", "600ms"), ("fallback.mode", "mock")]).await;
    stub.next(Behaviour::SlowBody { chunk_bytes: 1, pause: Duration::from_millis(500) });
    let answer = vecho.embed(ask("y")).await;
    assert_eq!((answer.status, answer.error().1), (504, json!("upstream_timeout")));
    assert_eq!(stub.embedding_calls().len(), 3);
    assert!(vecho.metric("vecho_upstream_breaker_opened_total").await.abs() < f64::EPSILON);
}

#[tokio::test]
async fn a_refused_connection_is_retried_until_the_upstream_is_back() {
    let stub = Stub::start();
    let vecho =
        start(&stub, &[("retry.max_attempts", "10"), ("retry.base_wait", "300ms"), ("retry.max_wait", "1s")]).await;
    stub.down().await;
    let (answer, ()) = tokio::join!(vecho.embed(ask("x")), async {
        let tried = r#"vecho_upstream_calls_total{outcome="unavailable"}"#;
        let has_failed = async || crate::harness::ops::metric(vecho.admin(), tried).await >= 1.0;
        crate::harness::eventually("a failed call", has_failed).await;
        stub.up().await;
    });
    assert_right(&answer, "x");
}

#[tokio::test]
async fn retries_end_at_the_configured_maximum_with_the_upstreams_last_error() {
    let stub = Stub::start();
    let vecho = start(&stub, &[("retry.max_attempts", "3")]).await;
    stub.always(status(503, &[("x-odd", "1")], r#"{"error":"maintenance"}"#));
    let answer = vecho.embed(ask("x")).await;
    assert_eq!((answer.status, &answer.body[..]), (503, &br#"{"error":"maintenance"}"#[..]));
    assert_eq!(answer.header("x-odd"), Some("1"));
    assert_eq!(stub.embedding_calls().len(), 3);
}

#[tokio::test]
async fn retries_during_an_outage_stay_within_the_budget() {
    let stub = Stub::start();
    let vecho = start(&stub, &[("retry.max_attempts", "5"), ("retry.budget_ratio", "0.1")]).await;
    stub.always(status(500, &[], "{}"));
    for number in 0..40 {
        assert_eq!(vecho.embed(ask(&number.to_string())).await.status, 500);
    }
    let calls = stub.embedding_calls().len();
    assert!((50..=56).contains(&calls), "40 requests, a reserve of 10 and a tenth of them: {calls}");
}

#[tokio::test]
async fn no_attempt_starts_after_the_deadline_of_the_request() {
    let stub = Stub::start();
    let limits = [("limits.request_timeout", "15s"), ("retry.max_attempts", "20"), ("retry.base_wait", "5s")];
    let vecho = start(&stub, &[&limits[..], &[("retry.max_wait", "60s")]].concat()).await;
    stub.always(status(503, &[("retry-after", "30")], "{}"));
    let answer = vecho.embed(ask("x")).await;
    assert_eq!(answer.status, 503);
    assert_eq!(stub.embedding_calls().len(), 1, "30 s do not fit into 15 s");
}

#[tokio::test]
async fn a_long_retry_after_is_passed_on_at_once() {
    for code in [429, 503] {
        let stub = Stub::start();
        let settings = [("retry.base_wait", "1ms"), ("retry.max_wait", "1s"), ("pace.mode", "off")];
        let vecho = start(&stub, &settings).await;
        stub.always(status(code, &[("retry-after", "8")], "{}"));
        let answer = vecho.embed(ask("x")).await;
        assert_eq!((answer.status, answer.header("retry-after")), (code, Some("8")));
        assert_eq!(stub.embedding_calls().len(), 1);
    }
}

#[tokio::test]
async fn a_slow_failure_is_not_retried() {
    let stub = Stub::start();
    let vecho = start(&stub, &[]).await;
    stub.always(Behaviour::All(vec![Behaviour::Delay(Duration::from_millis(1_050)), status(500, &[], "{}")]));
    assert_eq!(vecho.embed(ask("x")).await.status, 500);
    assert_eq!(stub.embedding_calls().len(), 1);
}

#[tokio::test]
async fn a_request_beyond_its_timeout_gets_a_504_envelope() {
    let stub = Stub::start();
    let vecho = start(&stub, &[("limits.request_timeout", "100ms")]).await;
    stub.always(Behaviour::Gate);
    let answer = vecho.embed(ask("x")).await;
    assert_eq!(answer.status, 504);
    assert_eq!(answer.error(), ("server_error".to_owned(), json!("upstream_timeout")));
}

#[tokio::test]
async fn a_throttled_call_waits_for_retry_after_and_succeeds() {
    let stub = Stub::start();
    let vecho = start(&stub, &[("limits.request_timeout", "10s")]).await;
    // The more precise header wins. The wait in the other one exceeds the request's deadline.
    stub.next(status(429, &[("retry-after-ms", "150"), ("retry-after", "60")], "{}"));
    assert_right(&vecho.embed(ask("x")).await, "x");
    let calls = stub.embedding_calls();
    assert_eq!(calls.len(), 2);
    assert!(calls[1].at.duration_since(calls[0].at) >= Duration::from_millis(150), "retry-after-ms is obeyed");
}

#[tokio::test]
async fn a_persistent_429_is_passed_on_with_its_retry_after() {
    let stub = Stub::start();
    let vecho = start(&stub, &[("limits.request_timeout", "5s"), ("fallback.mode", "mock")]).await;
    stub.always(Behaviour::RateLimit { retry_after_ms: 60_000 });
    let answer = vecho.embed(ask("x")).await;
    assert_eq!(answer.status, 429);
    assert_eq!(answer.error(), ("tokens".to_owned(), json!("rate_limit_exceeded")));
    assert_eq!((answer.header("retry-after-ms"), answer.header("retry-after")), (Some("60000"), Some("60")));
    assert_eq!(stub.embedding_calls().len(), 1, "a minute does not fit into five seconds");
}

#[tokio::test]
async fn a_throttled_request_without_a_second_attempt_gets_the_429_not_a_mock() {
    let stub = Stub::start();
    let settings = [("limits.request_timeout", "3s"), ("upstream.max_concurrent", "1"), ("fallback.mode", "mock")];
    let vecho = start(&stub, &settings).await;
    stub.next(status(429, &[("retry-after-ms", "700")], r#"{"error":{"message":"slow down"}}"#));
    stub.always(Behaviour::Gate);
    let throttled = async {
        let answer = vecho.embed(ask("x")).await;
        stub.release_all();
        answer
    };
    // Takes the only permit during the wait.
    let other = async {
        eventually("the other one waits", async || stub.embedding_calls().len() == 1).await;
        vecho.embed(json!({"model": "other", "input": "y"})).await
    };
    let (throttled, _) = tokio::join!(throttled, other);
    assert_eq!((throttled.status, throttled.json()["error"]["message"].clone()), (429, json!("slow down")));
    assert_eq!(stub.embedding_calls().len(), 2);
}

#[tokio::test]
async fn x_should_retry_false_prevents_retries() {
    let stub = Stub::start();
    let vecho = start(&stub, &[]).await;
    for (number, code) in [503, 429].into_iter().enumerate() {
        stub.always(status(code, &[("x-should-retry", "false"), ("retry-after-ms", "1")], "{}"));
        let answer = vecho.embed(ask("x")).await;
        assert_eq!((answer.status, answer.header("x-should-retry")), (code, Some("false")));
        assert_eq!(stub.embedding_calls().len(), number + 1);
    }
}

#[tokio::test]
async fn a_refusal_is_passed_on_verbatim_without_retry() {
    let stub = Stub::start();
    let vecho = start(&stub, &[("fallback.mode", "mock")]).await;
    for (number, code) in [400, 401, 403, 404, 408, 409, 422].into_iter().enumerate() {
        let body = format!(r#"{{"odd":[{code}], "spaces" : true}}"#);
        stub.always(status(code, &[("x-request-id", "req_theirs"), ("x-odd", "yes")], &body));
        let answer = vecho.embed(ask("x")).await;
        assert_eq!((answer.status, &answer.body[..]), (code, body.as_bytes()));
        assert_eq!((answer.header("x-request-id"), answer.header("x-odd")), (Some("req_theirs"), Some("yes")));
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!((answer.header("set-cookie"), answer.header("alt-svc")), (None, None));
        assert_eq!(answer.header("x-vecho-cache"), None, "a refusal is no answer of the cache");
        assert_eq!(stub.embedding_calls().len(), number + 1, "{code}: one call");
    }
    stub.always(Behaviour::Normal);
    assert_right(&vecho.embed(ask("x")).await, "x");
}

#[tokio::test]
async fn an_exhausted_quota_is_not_retried() {
    let stub = Stub::start();
    let vecho = start(&stub, &[("fallback.mode", "mock")]).await;
    stub.always(Behaviour::Quota);
    let answer = vecho.embed(ask("x")).await;
    assert_eq!(answer.status, 429);
    assert_eq!(answer.error(), ("insufficient_quota".to_owned(), json!("insufficient_quota")));
    assert_eq!(stub.embedding_calls().len(), 1);
}

#[tokio::test]
async fn a_reused_connection_that_closes_early_gives_one_free_retry() {
    let stub = Stub::start();
    let vecho =
        start(&stub, &[("retry.max_attempts", "1"), ("retry.base_wait", "60s"), ("retry.max_wait", "60s")]).await;
    assert_right(&vecho.embed(ask("first")).await, "first");
    stub.next(Behaviour::HangUp);
    assert_right(&vecho.embed(ask("second")).await, "second");
    let calls = stub.embedding_calls();
    assert_eq!(calls.len(), 3);
    assert_eq!(calls[0].connection, calls[1].connection, "it was a kept connection");
}

#[tokio::test]
async fn a_paid_call_that_outlives_its_request_is_stored() {
    let stub = Stub::start();
    let vecho = start(&stub, &[("limits.request_timeout", "200ms"), ("retry.max_attempts", "1")]).await;
    stub.next(Behaviour::Gate);
    assert_eq!(vecho.embed(ask("x")).await.status, 504);
    stub.release(1);
    eventually("the answer is stored", async || {
        let answer = vecho.embed_with(&[("cache-control", "only-if-cached")], ask("x")).await;
        answer.status == 200 && answer.vectors() == [Stub::vector("tiny", None, "x")]
    })
    .await;
    assert_eq!(stub.embedding_calls().len(), 1);
}

#[tokio::test]
async fn a_request_that_times_out_in_the_queue_is_not_an_upstream_failure() {
    let stub = Stub::start();
    let settings = [("limits.request_timeout", "200ms"), ("upstream.max_concurrent", "1"), ("breaker.failures", "1")];
    let vecho = start(&stub, &settings).await;
    stub.next(Behaviour::Gate);
    let (first, queued) = tokio::join!(vecho.embed(ask("x")), vecho.embed(json!({"model": "other", "input": "y"})));
    assert_eq!((first.status, queued.status), (504, 504));
    stub.release(1);
    eventually("the place is free again", async || vecho.embed(ask("z")).await.status == 200).await;
    assert!(vecho.metric("vecho_upstream_breaker_opened_total").await.abs() < f64::EPSILON);
    let mut asked = Vec::new();
    for call in stub.embedding_calls() {
        asked.extend(call.texts());
    }
    assert!(!asked.contains(&"y".to_owned()), "nobody waited for it any more: {asked:?}");
}

#[tokio::test]
async fn a_waiter_is_answered_although_its_leader_timed_out_in_the_queue() {
    let stub = Stub::start();
    let vecho = start(&stub, &[("limits.request_timeout", "2s"), ("upstream.max_concurrent", "1")]).await;
    stub.next(Behaviour::Gate);
    let begun = Instant::now();
    let blocker = vecho.embed(json!({"model": "other", "input": "x"}));
    let first = async {
        stub.held(1).await;
        let first = vecho.embed(ask("y")).await;
        stub.release(1);
        first
    };
    let joiner = async {
        eventually("half of the first one's time is over", async || begun.elapsed() >= Duration::from_secs(1)).await;
        vecho.embed(ask("y")).await
    };
    let (_, first, joiner) = tokio::join!(blocker, first, joiner);
    assert_eq!(first.status, 504);
    assert_right(&joiner, "y");
}

#[tokio::test]
async fn an_enormous_retry_after_is_not_waited_for() {
    let stub = Stub::start();
    let vecho = start(&stub, &[]).await;
    stub.next(status(429, &[("retry-after", "10000000000000000000")], "{}"));
    let begun = std::time::Instant::now();
    assert_right(&vecho.embed(ask("x")).await, "x");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(stub.embedding_calls().len(), 2, "a time that is no time is no reason for an error");
}

#[tokio::test]
async fn mock_and_stale_answers_of_an_upstream_vecho_are_rejected() {
    let stub = Stub::start();
    let vecho = start(&stub, &[("retry.max_attempts", "1")]).await;
    let body = r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[1,0]}],"model":"tiny"}"#;
    let marked = body.replace("\"model\"", "\"vecho\":{\"mock\":[0]},\"model\"");
    for fallback in [status(200, &[("x-vecho-cache", "stale")], body), status(200, &[], &marked)] {
        stub.next(fallback);
        assert_eq!(vecho.embed(ask("x")).await.status, 502);
    }
    let answer = vecho.embed(ask("x")).await;
    assert_right(&answer, "x");
    assert_eq!(answer.header("x-vecho-cache"), Some("miss"));
}

#[tokio::test]
async fn retries_of_many_requests_stay_within_the_budget() {
    let stub = Stub::start();
    let vecho = start(&stub, &[("retry.max_attempts", "3"), ("retry.budget_ratio", "0.1")]).await;
    stub.always(status(503, &[], "{}"));
    for number in 0..60 {
        assert_eq!(vecho.embed(ask(&number.to_string())).await.status, 503);
    }
    let retries = stub.embedding_calls().len() - 60;
    assert!((10..=17).contains(&retries), "a reserve of 10, and one for every 10 requests: {retries}");
}
