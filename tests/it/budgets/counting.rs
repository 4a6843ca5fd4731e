//! What counts towards a budget.

use serde_json::{Value, json};

use super::{SMALL, assert_refused, of_tokens, spent, tiny};
use crate::harness::client::Answer;
use crate::harness::front::{Front, TINY};
use crate::harness::{Behaviour, Inside, Stub, eventually};

const LARGE: (&str, &str) = ("budget.tokens_per_day", "1000000");

async fn started(stub: &Stub) -> Inside {
    let pairs = [LARGE, ("fallback.mode", "error"), ("breaker.failures", "0"), ("retry.base_wait", "1ms")];
    Inside::start(&stub.base_url(), &pairs).await
}

#[tokio::test]
async fn failed_calls_that_were_not_billed_give_their_reservation_back() {
    let stub = Stub::start();
    let pairs = [
        ("budget.tokens_per_day", "10"),
        ("fallback.mode", "error"),
        ("breaker.failures", "0"),
        ("retry.max_attempts", "1"),
        ("pace.mode", "off"),
    ];
    let vecho = Inside::start(&stub.base_url(), &pairs).await;
    let body = of_tokens("fails", 10);
    let status = |code| Behaviour::Status { code, headers: Vec::new(), body: "{}".to_owned() };
    for behaviour in
        [status(500), status(400), status(401), Behaviour::Quota, Behaviour::RateLimit { retry_after_ms: 60_000 }]
    {
        stub.always(behaviour.clone());
        let answer = vecho.embed(&body).await;
        assert!(
            answer.status >= 400 && answer.json()["error"]["code"] != "budget_exhausted",
            "{behaviour:?}: {answer:?}"
        );
        assert_eq!(spent(&vecho).await, 0, "{behaviour:?}");
    }
    stub.down().await;
    assert!(vecho.embed(&body).await.status >= 500);
    stub.up().await;
    stub.always(Behaviour::Normal);
    assert_eq!(vecho.embed(&body).await.status, 200, "the whole budget is left");
    assert_eq!((spent(&vecho).await, stub.billed_tokens()), (10, 10));
}

#[tokio::test]
async fn an_answer_that_breaks_off_counts_at_its_estimate() {
    let stub = Stub::start();
    let pairs = [LARGE, ("retry.max_attempts", "1"), ("fallback.mode", "error"), ("breaker.failures", "0")];
    let vecho = Inside::start(&stub.base_url(), &pairs).await;
    stub.always(Behaviour::CutBody);
    assert!(vecho.embed(json!({"model": TINY, "input": "nine bytes"})).await.status >= 500);
    // The estimate is a token for each three bytes.
    assert!(spent(&vecho).await >= 4, "the service did the work");
}

#[tokio::test]
async fn a_call_is_not_repeated_once_the_budget_is_spent() {
    for (limit, calls) in [("10", 1), ("1000", 2)] {
        let front = Front::with(&[("budget.tokens_per_day", limit)]).await;
        front.stub.next(Behaviour::CutBody);
        let answer = front.ask(&json!({"model": TINY, "input": [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]]})).await;
        assert_eq!(answer.status, if calls == 1 { 429 } else { 200 }, "{answer:?}");
        assert_eq!(front.calls(), calls);
    }
}

#[tokio::test]
async fn an_unreadable_answer_counts_what_it_reports() {
    let stub = Stub::start();
    let vecho = started(&stub).await;
    stub.always(Behaviour::AllZero);
    vecho.embed(of_tokens("zero", 7)).await;
    assert_eq!(spent(&vecho).await, stub.billed_tokens());
    assert!(stub.billed_tokens() > 0);
}

#[tokio::test]
async fn an_answer_without_usage_counts_at_its_estimate() {
    let stub = Stub::start();
    stub.always(Behaviour::NoUsage);
    let vecho = started(&stub).await;
    assert_eq!(vecho.embed(json!({"model": TINY, "input": [[1, 2, 3, 4, 5], [6]]})).await.status, 200);
    assert_eq!(spent(&vecho).await, 6);
}

#[tokio::test]
async fn repeated_inputs_and_repeated_calls_count_as_the_upstream_bills_them() {
    let stub = Stub::start();
    let vecho = started(&stub).await;
    let body = json!({"model": TINY, "input": ["one two", "three", "one two", "one two"]});
    vecho.embed(&body).await;
    vecho.embed(&body).await;
    vecho.embed_with(&[("cache-control", "no-cache")], &body).await;
    stub.next(Behaviour::HangUp);
    vecho.embed(tiny(&["after a broken connection"])).await;
    assert_eq!(spent(&vecho).await, stub.billed_tokens());
}

#[tokio::test]
async fn merged_calls_of_several_requests_count_once() {
    let stub = Stub::start();
    let pairs = [LARGE, ("upstream.max_concurrent", "1"), ("upstream.encoding", "base64")];
    let vecho = Inside::start(&stub.base_url(), &pairs).await;
    vecho.embed(tiny(&["the first answer shows that calls may be merged"])).await;
    let asks: Vec<Value> = (0..30).map(|n| json!({"model": TINY, "input": format!("number {n}")})).collect();
    let answers = futures_util::future::join_all(asks.iter().map(|ask| vecho.embed(ask))).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(spent(&vecho).await, stub.billed_tokens());
}

#[tokio::test]
async fn a_similarity_request_counts_its_inputs() {
    let front = Front::with(&[LARGE]).await;
    let body = json!({"model": TINY, "query": "a query", "candidates": ["one", "two words", "three more words"]});
    assert_eq!(front.post_to("/v1/vecho/similar", body.to_string()).send().await.status, 200);
    let page = front.metric(super::SPENT).await;
    assert_eq!(super::whole(page), front.stub.billed_tokens());
}

/// A request that vecho passes through because of a member that it does not know.
fn unknown(text: &str) -> Value {
    json!({"model": SMALL, "input": text, "dimensions": 8, "messages": ["anything"]})
}

#[tokio::test]
async fn a_bypassed_request_counts_what_its_answer_reports() {
    let stub = Stub::start();
    let vecho = started(&stub).await;
    for behaviour in [Behaviour::Normal, Behaviour::SlowBody { chunk_bytes: 7, pause: std::time::Duration::ZERO }] {
        let before = spent(&vecho).await;
        stub.always(behaviour);
        let answer = vecho.embed_with(&[("accept-encoding", "gzip")], unknown("some words to embed")).await;
        assert_eq!((answer.status, answer.cache()), (200, "bypass"));
        eventually("the cost of the bypass", async || spent(&vecho).await > before).await;
        assert_eq!(spent(&vecho).await, stub.billed_tokens());
    }
    assert_eq!(stub.calls()[0].header("accept-encoding"), Some("identity"));
    let before = spent(&vecho).await;
    stub.always(Behaviour::NoUsage);
    vecho.embed(unknown("no usage")).await;
    eventually("the estimate of the bypass", async || spent(&vecho).await > before).await;
}

#[tokio::test]
async fn a_bypassed_request_is_refused_when_the_budget_is_spent() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[("budget.tokens_per_day", "100")]).await;
    assert_eq!(vecho.embed(of_tokens("all of it", 100)).await.status, 200);
    let answer: Answer = vecho.embed(unknown("one more")).await;
    assert_refused(&answer);
    assert_eq!(stub.calls().len(), 1);
}

#[tokio::test]
async fn a_bypassed_request_that_fails_costs_nothing() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[("budget.tokens_per_day", "100")]).await;
    stub.always(Behaviour::Status { code: 400, headers: Vec::new(), body: "{}".to_owned() });
    for _ in 0..20 {
        assert_eq!(vecho.embed(unknown("an error")).await.status, 400);
    }
    stub.always(Behaviour::Normal);
    assert_eq!(vecho.embed(of_tokens("all of it", 100)).await.status, 200);
}

#[tokio::test]
async fn without_a_budget_nothing_is_counted_and_no_header_is_changed() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[]).await;
    vecho.embed(tiny(&["a"])).await;
    vecho.embed_with(&[("accept-encoding", "gzip")], unknown("a")).await;
    assert_eq!(stub.calls()[1].header("accept-encoding"), Some("gzip"));
    let page = vecho.client.get(&format!("http://{}/metrics", vecho.admin())).await;
    assert!(!String::from_utf8_lossy(&page.body).contains("vecho_budget_spent{"));
}
