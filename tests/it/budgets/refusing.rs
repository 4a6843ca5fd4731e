//! What a spent budget refuses, and what it does not.

use std::time::Duration;

use serde_json::{Value, json};

use super::{SMALL, assert_refused, of_tokens, spent, tiny};
use crate::harness::front::{TINY, texts_of};
use crate::harness::{Behaviour, Front, Inside, Stub};

/// The harness's clock begins at 22:13:20 UTC.
const SECONDS_TO_MIDNIGHT: u64 = 6_400;

#[tokio::test]
async fn hits_go_on_and_misses_are_refused_when_the_budget_is_spent() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[("budget.tokens_per_day", "10")]).await;
    let first = of_tokens("first", 10);
    assert_eq!(vecho.embed(&first).await.cache(), "miss");
    let refused = vecho.embed(of_tokens("second", 2)).await;
    let message = assert_refused(&refused);
    for part in ["budget.tokens_per_day", "10 tokens", "needs about 2 tokens", "2023-11-15T00:00:00Z"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(refused.header("retry-after"), Some(SECONDS_TO_MIDNIGHT.to_string().as_str()));
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    for _ in 0..3 {
        assert_eq!(vecho.embed(&first).await.cache(), "hit");
    }
    assert_eq!((stub.embedding_calls().len(), stub.billed_tokens(), spent(&vecho).await), (1, 10, 10));
}

#[tokio::test]
async fn a_request_of_hits_and_misses_is_refused_whole() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[("budget.tokens_per_day", "9")]).await;
    let both = |other: &str| json!({"model": SMALL, "input": ["known text", other], "dimensions": 8});
    assert_eq!(vecho.embed(both("another")).await.status, 200);
    let spent_before = spent(&vecho).await;
    assert!(vecho.embed(both("x x x x x x x x x x x x")).await.status == 429, "the rest of the budget is too small");
    assert_eq!(vecho.embed(json!({"model": SMALL, "input": "known text", "dimensions": 8})).await.cache(), "hit");
    assert_eq!((spent(&vecho).await, stub.embedding_calls().len()), (spent_before, 1));
}

#[tokio::test]
async fn a_refused_request_never_gets_a_mock_even_if_mocks_are_allowed() {
    let front = Front::with(&[("budget.tokens_per_day", "2"), ("fallback.mode", "mock")]).await;
    assert_refused(&front.embed(&["a text of several words that needs more"]).await);
    assert_eq!(front.calls(), 0);
    let page = front.metric(r#"vecho_rejected_total{reason="budget"}"#).await;
    assert!((page - 1.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn an_expired_entry_is_served_if_the_fallback_allows_it() {
    for (mode, expected) in [("stale", 200), ("error", 429)] {
        let front = Front::with(&[
            ("budget.tokens_per_day", "1"),
            ("fallback.mode", mode),
            ("cache.ttl", "1m"),
            ("cache.stale_for", "1h"),
        ])
        .await;
        assert_eq!(front.embed(&["abc"]).await.status, 200);
        front.pass(Duration::from_mins(2));
        let answer = front.embed(&["abc"]).await;
        assert_eq!(answer.status, expected, "{mode}: {answer:?}");
        if expected == 200 {
            assert_eq!((answer.cache(), answer.header("x-vecho-fallback-reason")), ("stale", Some("budget")));
            let both = front.ask(&texts_of(&["abc", "def"])).await;
            assert_refused(&both);
        }
        assert_eq!(front.calls(), 1);
    }
}

#[tokio::test]
async fn a_request_above_the_budget_of_a_day_is_told_to_be_smaller() {
    let front = Front::with(&[("budget.tokens_per_day", "5")]).await;
    let refused = front.ask(&of_tokens("large", 6)).await;
    let message = assert_refused(&refused);
    assert!(message.contains("more than the budget of a whole day"), "{message}");
    assert_eq!((refused.header("retry-after"), refused.header("x-should-retry")), (None, Some("false")));
    assert_eq!(front.ask(&of_tokens("small", 5)).await.status, 200);
}

#[tokio::test]
async fn a_request_joins_a_paid_fetch_that_is_under_way() {
    let front = Front::with(&[("budget.tokens_per_day", "5")]).await;
    front.stub.always(Behaviour::Gate);
    let ask = || front.post(of_tokens("shared", 5).to_string()).send_meanwhile();
    let first = ask();
    front.stub.held(1).await;
    let second = ask();
    assert_refused(&front.ask(&of_tokens("other", 2)).await);
    front.stub.release(1);
    assert_eq!(first.await.expect("it ends").status, 200);
    let second = second.await.expect("it ends");
    assert_eq!(second.status, 200, "{second:?}");
    assert_eq!(front.calls(), 1);
}

#[tokio::test]
async fn concurrent_requests_reserve_what_they_need_before_they_call() {
    let front = Front::with(&[("budget.tokens_per_day", "100")]).await;
    front.stub.always(Behaviour::Gate);
    // The cost of token arrays is known without the tokenizer, for which so many requests would have to wait.
    let ask = |n: u32| json!({"model": TINY, "input": [(n * 10..n * 10 + 10).collect::<Vec<u32>>()]});
    let asks: Vec<_> = (0..40).map(|n| front.post(ask(n).to_string()).send_meanwhile()).collect();
    // No call has been answered, and all that do not fit are refused already.
    front.reaches(r#"vecho_rejected_total{reason="budget"}"#, 30.0).await;
    front.stub.release(40);
    let mut answered = 0;
    for ask in asks {
        answered += usize::from(ask.await.expect("it ends").status == 200);
    }
    assert_eq!((answered, front.stub.billed_tokens()), (10, 100));
}

#[tokio::test]
async fn a_smaller_request_is_answered_after_a_larger_one_was_refused() {
    let front = Front::with(&[("budget.tokens_per_day", "12")]).await;
    front.stub.always(Behaviour::Gate);
    let large = json!({"model": SMALL, "input": ["alpha", super::text_of_tokens("beta", 30)], "dimensions": 8});
    assert_refused(&front.ask(&large).await);
    let small = front.post(json!({"model": SMALL, "input": "alpha", "dimensions": 8}).to_string()).send_meanwhile();
    front.stub.held(1).await;
    front.stub.release(1);
    assert_eq!(small.await.expect("it ends").status, 200);
}

/// The first count of tokens loads tables, so the smaller request joins the larger one before that is refused.
#[tokio::test]
async fn a_smaller_request_that_joined_a_refused_one_is_answered() {
    let front = Front::with(&[("budget.tokens_per_day", "12")]).await;
    let large = json!({"model": SMALL, "input": ["alpha", super::text_of_tokens("beta", 30)], "dimensions": 8});
    let small = json!({"model": SMALL, "input": "alpha", "dimensions": 8});
    let (large, small) = tokio::join!(front.ask(&large), front.ask(&small));
    assert_refused(&large);
    assert_eq!(small.status, 200, "{small:?}");
    assert_eq!(front.calls(), 1);
}

#[tokio::test]
async fn a_namespace_has_its_own_budget_within_the_whole() {
    let stub = Stub::start();
    let pairs = [("budget.tokens_per_day", "25"), ("budget.namespace_tokens_per_day", "team-a=10, team-b=20")];
    let vecho = Inside::start(&stub.base_url(), &pairs).await;
    let ask = async |namespace: &str, name: &str, tokens: usize| {
        let headers = [("x-vecho-namespace", namespace)];
        vecho.embed_with(if namespace.is_empty() { &[][..] } else { &headers }, of_tokens(name, tokens)).await
    };
    assert_eq!(ask("team-a", "one", 10).await.status, 200);
    let message = assert_refused(&ask("team-a", "two", 2).await);
    assert!(message.contains("budget.namespace_tokens_per_day of team-a: 10 tokens"), "{message}");
    assert_eq!(ask("team-b", "one", 10).await.status, 200, "another namespace has its own");
    assert_eq!(ask("unknown", "one", 3).await.status, 200, "a namespace without a budget has that of the whole");
    assert_eq!(ask("", "one", 2).await.status, 200);
    let message = assert_refused(&ask("team-b", "two", 2).await);
    assert!(message.contains("(budget.tokens_per_day: 25 tokens)"), "{message}");
    assert_eq!(vecho.metric(&super::spent_by("team-a")).await.to_string(), "10");
    assert_eq!((spent(&vecho).await, stub.billed_tokens()), (25, 25));
}

#[tokio::test]
async fn money_is_counted_by_the_price_of_the_model() {
    let stub = Stub::start();
    // A token of the first model costs a whole unit, and one of the second costs ten.
    let prices = ("savings.prices", "text-embedding-3-small=1000000, text-embedding-3-large=10000000");
    let vecho = Inside::start(&stub.base_url(), &[prices, ("budget.money_per_day", "25.5")]).await;
    assert_eq!(vecho.embed(of_tokens("small", 5)).await.status, 200);
    let large = |name: &str, tokens: usize| {
        let mut body = of_tokens(name, tokens);
        body["model"] = json!("text-embedding-3-large");
        body
    };
    assert_eq!(vecho.embed(large("large", 2)).await.status, 200);
    let message = assert_refused(&vecho.embed(large("more", 1)).await);
    assert!(message.contains("budget.money_per_day: 25.5 USD") && message.contains("has 0.5 USD left"), "{message}");
    let series = r#"vecho_budget_spent{budget="budget.money_per_day",cache_namespace=""}"#;
    assert!((vecho.metric(series).await - 25.0).abs() < 1e-9);
}

#[tokio::test]
async fn a_model_without_a_price_counts_at_the_highest_price() {
    let stub = Stub::start();
    let prices = ("savings.prices", "cheap=1000000, dear=5000000, free=0");
    let vecho = Inside::start(&stub.base_url(), &[prices, ("budget.money_per_day", "100")]).await;
    let ask = async |model: &str| vecho.embed(json!({"model": model, "input": [[1, 2, 3]], "dimensions": 8})).await;
    for (model, sum) in [("cheap", 3.0), ("unpriced", 18.0), ("free", 18.0), ("dear", 33.0)] {
        assert_eq!(ask(model).await.status, 200);
        let series = r#"vecho_budget_spent{budget="budget.money_per_day",cache_namespace=""}"#;
        assert!((vecho.metric(series).await - sum).abs() < 1e-9, "{model}");
    }
    assert_eq!(vecho.metric("vecho_budget_unpriced_tokens_total").await.to_string(), "3");
}

#[tokio::test]
async fn a_similarity_request_is_refused_like_any_other() {
    let front = Front::with(&[("budget.tokens_per_day", "3")]).await;
    let body = json!({"model": TINY, "query": "one query of words", "candidates": ["a", "b", "several more words"]});
    assert_refused(&front.post_to("/v1/vecho/similar", body.to_string()).send().await);
    assert_eq!(front.calls(), 0);
}

#[tokio::test]
async fn other_routes_are_neither_counted_nor_refused() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[("budget.tokens_per_day", "1")]).await;
    assert_refused(&vecho.embed(tiny(&["a text of several words"])).await);
    let url = format!("http://{}/v1/chat/completions", vecho.public());
    let body = json!({"model": "gpt-stub", "messages": [{"role": "user", "content": "Say hello"}]});
    let answer = vecho.client.post(&url, &body).await;
    assert_eq!((answer.status, answer.json()["object"].clone()), (200, Value::from("chat.completion")));
    assert_eq!(spent(&vecho).await, 0);
}

#[tokio::test]
async fn a_request_that_allows_only_cached_answers_keeps_its_own_error() {
    let front = Front::with(&[("budget.tokens_per_day", "1")]).await;
    let answer = front.post(tiny(&["some words"]).to_string()).header("cache-control", "only-if-cached").send().await;
    assert_eq!((answer.status, answer.error().1), (504, json!("not_cached")));
}
