//! A failure is reported to the request that caused it. It does not affect the model, the host or the batch size of
//! other calls.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::client::Answer;
use crate::harness::front::{TINY, tiny};
use crate::harness::stub::Call;
use crate::harness::{Behaviour, Front, Inside, Stub};

const CHOKES: &str = r#"{"error":{"code":500,"message":"NaN","type":"server_error"}}"#;

fn status(code: u16, body: &str) -> Behaviour {
    Behaviour::Status { code, headers: vec![("content-type", "application/json".to_owned())], body: body.to_owned() }
}

fn is_poisoned(call: &Call) -> bool {
    call.texts().iter().any(|text| text.contains("poison"))
}

fn numbered(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{name} {number}")).collect()
}

fn ask(texts: &[String]) -> Value {
    json!({"model": TINY, "input": texts})
}

/// Starts a front that falls back to mocks, with an upstream that fails on poisoned texts.
async fn choking(body: &str) -> Front {
    let front = Front::with(&[("fallback.mode", "mock"), ("breaker.failures", "5")]).await;
    front.stub.when(is_poisoned, status(500, body));
    front
}

fn assert_choked(answer: &Answer) {
    assert_eq!((answer.status, &answer.body[..]), (500, CHOKES.as_bytes()));
}

#[tokio::test]
async fn consecutive_failing_texts_are_not_an_outage_while_a_known_text_succeeds() {
    for good in ["good", &"a longer text, as chunks of documents are ".repeat(40)] {
        let front = choking(CHOKES).await;
        assert_eq!(front.embed(&[good]).await.status, 200);
        for text in numbered("poison", 20) {
            assert_choked(&front.embed(&[&text]).await);
        }
        assert_eq!(front.embed(&["another"]).await.vectors(), tiny(&["another"]));
    }
}

#[tokio::test]
async fn concurrent_failing_texts_are_not_an_outage_while_a_known_text_succeeds() {
    let front = choking(CHOKES).await;
    assert_eq!(front.embed(&["good"]).await.status, 200);
    let asks: Vec<_> =
        numbered("poison", 12).into_iter().map(|text| front.post(ask(&[text]).to_string()).send_meanwhile()).collect();
    for ask in asks {
        assert_choked(&ask.await.expect("it must end"));
    }
}

#[tokio::test]
async fn truncated_answers_do_not_open_the_breaker_while_a_known_text_succeeds() {
    let front = Front::with(&[("retry.max_attempts", "1"), ("breaker.failures", "2")]).await;
    assert_eq!(front.embed(&["good"]).await.status, 200);
    front.stub.when(is_poisoned, Behaviour::CutBody);
    for text in numbered("poison", 4) {
        assert_eq!(front.embed(&[&text]).await.status, 502);
    }
    assert!(front.metric("vecho_upstream_breaker_state").await < 0.5, "it is closed");
    assert_eq!(front.embed(&["another"]).await.vectors(), tiny(&["another"]));
}

#[tokio::test]
async fn the_known_text_of_one_caller_is_never_sent_with_the_key_of_another() {
    let front = choking(CHOKES).await;
    let send = async |text: &str, key: &str| front.post(ask(&[text.to_owned()]).to_string()).key(key).send().await;
    send("secret of alice", "alice").await;
    for text in numbered("poison", 8) {
        send(&text, "bob").await;
    }
    let of_bob = |call: &Call| call.header("authorization") == Some("Bearer bob");
    let calls = front.stub.embedding_calls();
    assert!(calls.iter().filter(|call| of_bob(call)).all(|call| call.texts() != ["secret of alice"]));
}

#[tokio::test]
async fn a_known_text_without_a_timely_answer_delays_no_request() {
    let front = Front::with(&[("fallback.mode", "error"), ("breaker.failures", "2")]).await;
    front.stub.when(is_poisoned, status(500, CHOKES));
    assert_eq!(front.embed(&["good"]).await.status, 200);
    assert_choked(&front.embed(&["poison 0"]).await);
    front.stub.when(|call| call.texts() == ["good"], Behaviour::Gate);
    assert_choked(&front.embed(&["poison 1"]).await);
}

#[tokio::test]
async fn unreadable_answers_reach_only_requests_with_identical_input_lists() {
    for (first, second) in [(vec!["a", "b"], vec!["a", "a", "b"]), (vec!["a", "a", "b"], vec!["a", "b"])] {
        let front = Front::start().await;
        // Vectors with fewer dimensions than requested are rejected.
        let answer = |call: &Call| {
            let item = |index: usize| json!({"index": index, "embedding": [1.0, index]});
            let data: Vec<Value> = (0..call.texts().len()).map(item).collect();
            status(200, &json!({"object": "list", "data": data, "model": TINY}).to_string())
        };
        front.stub.decide(move |call| Behaviour::All(vec![Behaviour::Gate, answer(call)]));
        let body = |texts: &[&str]| json!({"model": TINY, "input": texts, "dimensions": 4}).to_string();
        let one = front.post(body(&first)).send_meanwhile();
        front.stub.held(1).await;
        let other = front.post(body(&second)).send_meanwhile();
        front.reaches("vecho_requests_in_flight", 2.0).await;
        front.stub.release(100);
        for (texts, answer) in [(first, one), (second, other)] {
            let answer = answer.await.expect("it must end").json();
            assert_eq!(answer["data"].as_array().map(Vec::len), Some(texts.len()), "{texts:?}");
        }
    }
}

#[tokio::test]
async fn a_dimension_that_a_server_starts_to_honour_is_accepted_eventually() {
    let front = Front::start().await;
    let answer = |dimension: usize| {
        let item = json!({"index": 0, "embedding": vec![0.5; dimension]});
        status(200, &json!({"object": "list", "data": [item], "model": TINY}).to_string())
    };
    let ask = |text: String| json!({"model": TINY, "input": text, "dimensions": 4});
    front.stub.always(answer(8));
    assert_eq!(front.ask(&ask("first".to_owned())).await.cache(), "miss");
    front.stub.always(answer(4));
    for text in numbered("text", 3) {
        assert_eq!(front.ask(&ask(text)).await.cache(), "bypass");
    }
    assert_eq!(front.ask(&ask("next".to_owned())).await.cache(), "miss");
    assert_eq!(front.ask(&ask("first".to_owned())).await.vectors()[0].len(), 4, "older vectors are fetched again");
}

#[tokio::test]
async fn one_refusal_with_a_size_message_does_not_shrink_later_calls() {
    let front = Front::start().await;
    let refusal = r#"{"error":{"message":"Too many tokens in the inputs: at most 512"}}"#;
    front.stub.when(is_poisoned, status(400, refusal));
    let mut texts = numbered("text", 64);
    texts[10] = "poison".to_owned();
    assert_eq!(front.ask(&ask(&texts)).await.status, 400);
    let before = front.calls();
    assert_eq!(front.ask(&ask(&numbered("next", 64))).await.status, 200);
    assert_eq!(front.calls() - before, 1);
}

#[tokio::test]
async fn a_refused_large_request_takes_few_calls_and_does_not_shrink_later_ones() {
    for (code, most_calls) in [(400, 5), (500, 7)] {
        let front = Front::with(&[("breaker.failures", "5")]).await;
        front.stub.when(is_poisoned, status(code, r#"{"detail":"bad text"}"#));
        for place in [0, 299] {
            let mut texts = numbered("text", 300);
            texts[place] = "poison".to_owned();
            let before = front.calls();
            let answer = front.ask(&ask(&texts)).await;
            assert_eq!((answer.status, &answer.body[..]), (code, br#"{"detail":"bad text"}"#.as_slice()));
            assert!(front.calls() - before <= most_calls, "{} calls", front.calls() - before);
        }
        let before = front.calls();
        assert_eq!(front.ask(&ask(&numbered("next", 300))).await.status, 200);
        assert_eq!(front.calls() - before, 1);
    }
}

#[tokio::test]
async fn a_throttled_call_releases_its_memory_to_others() {
    // There is memory for the vectors of two such requests, and for one such answer.
    let settings = [("memory.limit_mb", "100"), ("upstream.max_concurrent", "2")];
    let front = Front::with(&settings).await;
    let throttled = Behaviour::RateLimit { retry_after_ms: 100 };
    front.stub.next(Behaviour::All(vec![Behaviour::Gate, throttled]));
    let asks: Vec<_> = (0..4)
        .map(|number| front.post(ask(&numbered(&format!("{number}"), 1_000)).to_string()).send_meanwhile())
        .collect();
    front.stub.held(1).await;
    front.stub.release(1);
    for ask in asks {
        assert_eq!(ask.await.expect("it must end").status, 200);
    }
}

#[tokio::test]
async fn all_requests_wait_for_a_recovered_slow_upstream() {
    let open = [("breaker.open_for", "100ms"), ("breaker.max_open", "100ms")];
    let front = Front::with(&[&[("fallback.mode", "mock"), ("breaker.failures", "3")], &open[..]].concat()).await;
    front.stub.down().await;
    for text in numbered("down", 3) {
        assert_eq!(front.embed(&[&text]).await.cache(), "mock");
    }
    front.stub.always(Behaviour::Gate);
    front.stub.up().await;
    let asks: Vec<_> = async {
        // The first request that reaches the stub is the probe. Earlier requests are rejected by the open breaker.
        loop {
            let probe = front.post(ask(&["probe".to_owned()]).to_string()).send_meanwhile();
            if tokio::time::timeout(Duration::from_millis(50), front.stub.held(1)).await.is_ok() {
                break vec![probe];
            }
            probe.abort();
        }
    }
    .await;
    front.reaches("vecho_upstream_breaker_state", 2.0).await;
    let second = front.post(ask(&["second".to_owned()]).to_string()).send_meanwhile();
    front.stub.held(2).await;
    front.stub.release(100);
    for ask in asks.into_iter().chain([second]) {
        assert_eq!(ask.await.expect("it must end").cache(), "miss");
    }
}

#[tokio::test]
async fn mock_and_stale_marks_of_another_vecho_are_recognised_in_any_spelling() {
    for mark in ["Mock", " stale ", "hit, mock"] {
        let front = Front::start().await;
        let item = json!({"index": 0, "embedding": [0.5, 0.5]});
        let body = json!({"object": "list", "data": [item], "model": TINY}).to_string();
        let headers = vec![("x-vecho-cache", mark.to_owned())];
        front.stub.always(Behaviour::Status { code: 200, headers, body });
        assert_eq!(front.embed(&["a"]).await.status, 502, "{mark}");
    }
}

#[tokio::test]
async fn a_redirect_that_cannot_be_followed_is_passed_on() {
    let front = Front::with(&[("fallback.mode", "mock"), ("breaker.failures", "1")]).await;
    let headers = vec![("location", "http://127.0.0.1:1/v1/embeddings".to_owned())];
    front.stub.next(Behaviour::Status { code: 307, headers, body: String::new() });
    assert_eq!(front.embed(&["a"]).await.status, 307);
    assert_eq!(front.embed(&["a"]).await.cache(), "miss", "it says nothing of the host");
}

#[tokio::test]
async fn the_location_of_a_refused_calls_redirect_points_to_vecho() {
    let front = Front::start().await;
    for code in [301, 302, 303] {
        let headers = vec![("location", format!("{}/v1/embeddings/x", front.stub.root_url()))];
        front.stub.next(Behaviour::Status { code, headers, body: String::new() });
        let answer = front.embed(&[&format!("{code}")]).await;
        assert_eq!((answer.status, answer.header("location")), (code, Some("/v1/embeddings/x")));
    }
}

#[tokio::test]
async fn hits_keep_an_id_after_a_restart_if_answers_have_one() {
    let stub = Stub::start();
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("ids-{}", std::process::id()));
    let path = folder.display().to_string();
    let pairs = [("disk.path", path.as_str())];
    let item = json!({"index": 0, "embedding": [0.5, 0.5]});
    stub.always(status(200, &json!({"id": "embd-1", "object": "list", "data": [item], "model": TINY}).to_string()));
    let ask = json!({"model": TINY, "input": "a"});
    let first = Inside::start(&stub.base_url(), &pairs).await;
    assert_eq!(first.embed(&ask).await.json()["id"], "embd-1");
    first.stop().await;
    let second = Inside::start(&stub.base_url(), &pairs).await;
    for _ in 0..3 {
        let hit = second.embed(&ask).await;
        assert!(hit.cache() == "hit" && hit.json()["id"].is_string(), "{hit:?}");
    }
    second.stop().await;
    std::fs::remove_dir_all(folder).expect("it is there");
}
