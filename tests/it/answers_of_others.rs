//! Answers of servers that deviate from the OpenAI service: vecho parses and stores them, and later hits are complete.

use serde_json::{Value, json};

use crate::harness::front::tiny;
use crate::harness::{Behaviour, Front, Stub};

/// Returns a successful embeddings answer with this body.
fn body(answer: &Value) -> Behaviour {
    let headers = vec![("content-type", "application/json".to_owned())];
    Behaviour::Status { code: 200, headers, body: answer.to_string() }
}

fn vector(text: &str) -> Vec<f32> {
    Stub::vector("tiny", None, text)
}

#[tokio::test]
async fn answers_that_omit_index_zero_and_usage_are_stored() {
    let front = Front::start().await;
    let data = json!([{"embedding": vector("a")}, {"index": 1, "embedding": vector("b")}]);
    front.stub.next(body(&json!({"object": "list", "data": data, "model": "tiny"})));
    for cache in ["miss", "hit"] {
        let answer = front.embed(&["a", "b"]).await;
        assert_eq!((answer.cache(), answer.vectors()), (cache, tiny(&["a", "b"])));
        assert_eq!(answer.indices(), [Some(0), Some(1)]);
    }
}

#[tokio::test]
async fn items_without_any_index_are_stored_by_position() {
    let front = Front::start().await;
    front.stub.always(Behaviour::NoIndex);
    for cache in ["miss", "hit"] {
        let answer = front.embed(&["a", "b"]).await;
        assert_eq!((answer.cache(), answer.vectors()), (cache, tiny(&["a", "b"])));
        assert_eq!(answer.indices(), [Some(0), Some(1)]);
    }
}

#[tokio::test]
async fn a_server_that_ignores_dimensions_is_cached_at_once() {
    let front = Front::start().await;
    let ask = json!({"model": "tiny", "input": "a", "dimensions": 4});
    let answer = json!({"object": "list", "data": [{"index": 0, "embedding": vector("a")}], "model": "tiny"});
    front.stub.always(body(&answer));
    for cache in ["miss", "hit", "hit"] {
        let answer = front.ask(&ask).await;
        assert_eq!((answer.cache(), answer.vectors()), (cache, vec![vector("a")]));
    }
    assert_eq!(front.calls(), 1);
}

#[tokio::test]
async fn shorter_vectors_than_requested_are_accepted_once_consistent() {
    let front = Front::start().await;
    let ask = json!({"model": "tiny", "input": "a", "dimensions": 12});
    let answer = json!({"object": "list", "data": [{"index": 0, "embedding": vector("a")}], "model": "tiny"});
    front.stub.always(body(&answer));
    for cache in ["bypass", "bypass", "bypass", "miss", "hit", "hit"] {
        let answer = front.ask(&ask).await;
        assert_eq!((answer.cache(), answer.vectors()), (cache, vec![vector("a")]));
    }
    assert_eq!(front.calls(), 4);
}

#[tokio::test]
async fn total_tokens_are_used_if_prompt_tokens_are_missing() {
    let front = Front::start().await;
    let data = json!([{"index": 0, "embedding": vector("a")}, {"index": 1, "embedding": vector("b")}]);
    front.stub.next(body(&json!({"data": data, "model": "tiny", "usage": {"total_tokens": 710}})));
    let miss = front.embed(&["a", "b"]).await;
    assert_eq!((miss.cache(), miss.usage(), miss.tokens()), ("miss", 710, "billed=710, saved=0"));
    let hit = front.embed(&["a", "b"]).await;
    assert_eq!((hit.cache(), hit.usage(), hit.tokens()), ("hit", 710, "billed=0, saved=710"));
}

/// The model name does not determine how another server counts tokens.
#[tokio::test]
async fn a_hit_reports_the_same_usage_as_its_miss_for_any_tokenizer() {
    let front = Front::start().await;
    let model = "text-embedding-3-small";
    let texts: Vec<String> = (0..3).map(|n| format!("one two three four five, six; text {n}")).collect();
    let items: Vec<Value> =
        (0..3).map(|n| json!({"index": n, "embedding": Stub::vector(model, Some(8), texts[n].as_str())})).collect();
    let usage = json!({"prompt_tokens": 15, "total_tokens": 15});
    front.stub.next(body(&json!({"data": items, "model": model, "usage": usage})));
    let ask = json!({"model": model, "input": texts, "dimensions": 8});
    for cache in ["miss", "hit", "hit"] {
        let answer = front.ask(&ask).await;
        assert_eq!((answer.cache(), answer.usage()), (cache, 15));
    }
}

#[tokio::test]
async fn matching_token_counts_of_one_call_are_not_assumed_for_the_next() {
    let front = Front::start().await;
    let model = "text-embedding-3-small";
    let words = |count: usize| vec!["word"; count].join(" ");
    front.ask(&json!({"model": model, "input": [words(40), words(30)], "dimensions": 8})).await;
    let items: Vec<Value> = ["a, b; c!", "d (e) f?"]
        .iter()
        .enumerate()
        .map(|(n, text)| json!({"index": n, "embedding": Stub::vector(model, Some(8), *text)}))
        .collect();
    front.stub.next(body(&json!({"data": items, "model": model, "usage": {"prompt_tokens": 6}})));
    let ask = json!({"model": model, "input": ["a, b; c!", "d (e) f?"], "dimensions": 8});
    for cache in ["miss", "hit"] {
        let answer = front.ask(&ask).await;
        assert_eq!((answer.cache(), answer.usage()), (cache, 6));
    }
}

#[tokio::test]
async fn an_answer_marked_as_mock_or_stale_only_by_its_header_is_not_stored() {
    for mark in ["mock", "stale", "miss, stale"] {
        let front = Front::with(&[("fallback.mode", "error")]).await;
        front.stub.always(Behaviour::Headers(vec![("x-vecho-cache", mark.to_owned())]));
        let refused = front.embed(&["a"]).await;
        assert_ne!(refused.status, 200, "{mark}: {refused:?}");
        front.stub.always(Behaviour::Normal);
        let answer = front.embed(&["a"]).await;
        assert_eq!((answer.cache(), answer.vectors()), ("miss", tiny(&["a"])), "{mark}");
    }
}
