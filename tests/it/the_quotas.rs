//! Tests of the stub's rate limits, on which the tests of pacing rely.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::client::{Answer, post};
use crate::harness::stub::{Counted, Quota, Reported, tokens};
use crate::harness::{Client, Stub};

const A_FULL_MINUTE: Counted = Counted::Bucket { capacity: 1.0 };

fn limited(requests: f64, tokens: f64, counted: Counted, reported: Reported) -> Stub {
    let stub = Stub::start();
    stub.limit_rate(Quota { requests, tokens, counted, reported });
    stub
}

async fn embed(stub: &Stub, key: &str, model: &str, input: Value) -> Answer {
    let mut request = post(&format!("{}/embeddings", stub.base_url()), &json!({"model": model, "input": input}));
    request.headers_mut().insert("authorization", key.parse().expect("a test's key is legal"));
    Client::new().send(request).await.expect("the answer must arrive")
}

fn number(answer: &Answer, header: &str) -> u64 {
    let value = answer.header(header).unwrap_or_else(|| panic!("no {header}: {answer:?}"));
    value.parse().expect("it is a number")
}

#[tokio::test]
async fn openais_headers_say_what_is_left_and_when_it_is_back() {
    let stub = limited(120.0, 6_000.0, A_FULL_MINUTE, Reported::OpenAi);
    let text = "how far is it to the next town?";
    let answer = embed(&stub, "k", "tiny", json!([text, text])).await;
    assert_eq!((answer.status, answer.usage()), (200, 2 * tokens(text) as u64));
    assert_eq!(
        (number(&answer, "x-ratelimit-limit-requests"), number(&answer, "x-ratelimit-limit-tokens")),
        (120, 6_000)
    );
    assert_eq!(number(&answer, "x-ratelimit-remaining-requests"), 119);
    assert_eq!(number(&answer, "x-ratelimit-remaining-tokens"), 6_000 - answer.usage());
    let reset = |name: &str| answer.header(&format!("x-ratelimit-reset-{name}")).map(str::to_owned);
    // Two requests and a hundred tokens are back in a second.
    assert_eq!((reset("requests").as_deref(), answer.usage()), (Some("500ms"), 18));
    assert_eq!(reset("tokens").as_deref(), Some("180ms"));
}

#[tokio::test]
async fn a_bucket_refuses_calls_beyond_its_capacity_until_it_has_refilled() {
    let stub = limited(120.0, 6_000.0, Counted::Bucket { capacity: 2.0 / 120.0 }, Reported::OpenAi);
    assert_eq!(embed(&stub, "k", "tiny", json!("a")).await.header("x-ratelimit-remaining-requests"), Some("119"));
    assert_eq!(embed(&stub, "k", "tiny", json!("b")).await.status, 200);
    let refused = embed(&stub, "k", "tiny", json!("c")).await;
    assert_eq!((refused.status, refused.error()), (429, ("requests".to_owned(), json!("rate_limit_exceeded"))));
    assert_eq!(number(&refused, "retry-after"), 1);
    assert_eq!(stub.embedding_calls().len(), 3);
    tokio::time::sleep(Duration::from_millis(number(&refused, "retry-after-ms"))).await;
    assert_eq!(embed(&stub, "k", "tiny", json!("c")).await.status, 200);
    let record = stub.quota_record();
    assert_eq!((record.accepted().len(), record.refused().len(), stub.billed_tokens()), (3, 1, 3));
    let large = embed(&stub, "k", "tiny", json!("a b c d e f g ".repeat(30))).await;
    assert!(large.json()["error"]["message"].as_str().is_some_and(|text| text.starts_with("Request too large")));
    assert_eq!((large.status, large.header("retry-after")), (429, None));
}

#[tokio::test]
async fn each_credential_and_model_has_limits_of_its_own() {
    let stub = limited(1.0, 6_000.0, A_FULL_MINUTE, Reported::Nothing);
    for (key, model, status) in
        [("a", "tiny", 200), ("a", "tiny", 429), ("b", "tiny", 200), ("a", "other", 200), ("a", "other", 429)]
    {
        let answer = embed(&stub, key, model, json!("x")).await;
        assert_eq!(answer.status, status, "{key} {model}");
        let hints = answer.headers.keys().filter(|name| name.as_str().contains("rate") || *name == "retry-after");
        assert_eq!(hints.count(), 0, "{answer:?}");
    }
}

#[tokio::test]
async fn azures_headers_have_no_limit_and_refusals_have_the_wait() {
    let stub = limited(6.0, 6_000.0, Counted::Bucket { capacity: 1.0 / 6.0 }, Reported::Azure);
    let answer = embed(&stub, "k", "tiny", json!("x")).await;
    assert_eq!(
        (number(&answer, "x-ratelimit-remaining-requests"), answer.header("x-ratelimit-limit-requests")),
        (5, None)
    );
    let refused = embed(&stub, "k", "tiny", json!("x")).await;
    assert_eq!((refused.status, refused.json()["error"]["code"].clone()), (429, json!("429")));
    assert_eq!(number(&refused, "retry-after"), 10);
    assert!((9_000..=10_000).contains(&number(&refused, "retry-after-ms")), "{refused:?}");
}

#[tokio::test]
async fn a_window_begins_with_its_whole_limit() {
    // The first window ends after a second.
    let (length, passed) = (Duration::from_secs(20), Duration::from_secs(19));
    let stub = limited(9.0, 6_000.0, Counted::Window { length, passed }, Reported::RetryAfter);
    for expected in [200, 200, 200, 429] {
        assert_eq!(embed(&stub, "k", "tiny", json!("x")).await.status, expected);
    }
    let refused = embed(&stub, "k", "tiny", json!("x")).await;
    assert_eq!((refused.status, number(&refused, "retry-after"), refused.header("retry-after-ms")), (429, 1, None));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(embed(&stub, "k", "tiny", json!("x")).await.status, 200);
    assert!((stub.quota_record().used(0.0) - 1.0).abs() < 1e-9, "all of the first window");
}

#[tokio::test]
async fn the_used_share_counts_what_was_there_and_what_came_back() {
    let stub = limited(600.0, 600_000.0, Counted::Bucket { capacity: 0.01 }, Reported::Nothing);
    for _ in 0..3 {
        assert_eq!(embed(&stub, "k", "tiny", json!("x")).await.status, 200);
    }
    let record = stub.quota_record();
    let expected = 3.0 / (6.0 + 10.0 * record.took().as_secs_f64());
    assert!((record.used(0.0) - expected).abs() < 1e-9, "{}", record.used(0.0));
    assert!((record.used(0.005) - 3.0 / (3.0 + 10.0 * record.took().as_secs_f64())).abs() < 1e-9);
}
