//! Tests of the reply cache: a cached reply has the same bytes as one built from the stored vectors, expires with
//! them, and never repeats the headers of another upstream call.

use std::time::Duration;

use serde_json::json;

use crate::harness::client::Answer;
use crate::harness::front::{TINY, texts_of, tiny};
use crate::harness::{Behaviour, Front};

const SERVED: &str = r#"vecho_cache_answers_total{result="served"}"#;

/// Returns all headers except those that differ between any two replies.
fn lasting_headers(answer: &Answer) -> Vec<(String, String)> {
    let mut headers: Vec<_> = answer
        .headers
        .iter()
        .filter(|(name, _)| !["x-request-id", "date"].contains(&name.as_str()))
        .map(|(name, value)| (name.to_string(), value.to_str().expect("a header is text").to_owned()))
        .collect();
    headers.sort();
    headers
}

/// Repeats a request until the reply cache serves it.
async fn rendered(front: &Front, texts: &[&str]) -> Answer {
    for _ in 0..2 {
        front.embed(texts).await;
    }
    let before = front.metric(SERVED).await;
    let answer = front.embed(texts).await;
    assert!(front.metric(SERVED).await > before, "it must come rendered");
    answer
}

#[tokio::test]
async fn a_cached_reply_equals_the_previous_hit_byte_for_byte() {
    for encoding in ["float", "base64"] {
        let front = Front::start().await;
        let body = json!({"model": TINY, "input": ["a", "b", "a"], "encoding_format": encoding});
        front.ask(&body).await;
        let (second, third) = (front.ask(&body).await, front.ask(&body).await);
        assert_eq!(second.body, third.body);
        assert_eq!((second.status, lasting_headers(&second)), (third.status, lasting_headers(&third)));
        assert_eq!(third.vectors(), tiny(&["a", "b", "a"]));
        assert_eq!(front.metric(SERVED).await.to_string(), "1", "the third one came rendered");
    }
}

#[tokio::test]
async fn every_reply_from_the_cache_has_a_request_id_of_its_own() {
    let front = Front::start().await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        let answer = front.embed(&["a"]).await;
        ids.push(answer.header("x-request-id").expect("an id").to_owned());
    }
    let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), 4, "{ids:?}");
}

#[tokio::test]
async fn replies_from_the_cache_never_repeat_headers_of_the_original_call() {
    let front = Front::start().await;
    let miss = front.embed(&["a"]).await;
    assert!(miss.header("x-ratelimit-remaining-tokens").is_some(), "a miss shows what the upstream said");
    for name in ["set-cookie", "alt-svc", "strict-transport-security"] {
        assert_eq!(miss.header(name), None, "{name}");
    }
    let reversed = json!({"model": TINY, "input": ["a"], "encoding_format": "base64"});
    for answer in [front.embed(&["a"]).await, rendered(&front, &["a"]).await, front.ask(&reversed).await] {
        assert_eq!(answer.cache(), "hit");
        let names: Vec<&str> = answer.headers.keys().map(http::HeaderName::as_str).collect();
        let replayed = |name: &&&str| {
            name.starts_with("x-ratelimit-")
                || ["set-cookie", "alt-svc", "cf-ray", "strict-transport-security", "openai-processing-ms"]
                    .contains(*name)
        };
        assert_eq!(names.iter().filter(replayed).count(), 0, "{names:?}");
    }
}

#[tokio::test]
async fn a_cached_reply_counts_as_a_hit_for_each_input() {
    let front = Front::start().await;
    let answer = rendered(&front, &["a", "b"]).await;
    assert_eq!((answer.cache(), answer.sources(), answer.tokens()), ("hit", "memory=2", "billed=0, saved=2"));
    assert_eq!(front.metric(r#"vecho_inputs_total{source="memory"}"#).await.to_string(), "4");
}

#[tokio::test]
async fn a_purge_removes_cached_replies() {
    for query in ["", "?tier=memory", "?model=tiny"] {
        let front = Front::start().await;
        rendered(&front, &["a"]).await;
        let purged = front.purge(query).await;
        assert_eq!((purged.status, &purged.json()["purged_entries"]), (200, &json!(1)), "{query}");
        let fetched = front.embed(&["a"]).await;
        assert_eq!((fetched.vectors(), fetched.cache()), (tiny(&["a"]), "miss"), "{query}");
    }
}

#[tokio::test]
async fn a_purge_of_cached_replies_alone_keeps_the_vectors() {
    let front = Front::start().await;
    rendered(&front, &["a"]).await;
    assert_eq!(front.purge("?tier=answers").await.status, 200);
    assert_eq!((front.embed(&["a"]).await.cache(), front.calls()), ("hit", 1));
}

#[tokio::test]
async fn fetches_in_progress_during_a_purge_are_not_stored() {
    let front = Front::start().await;
    front.stub.next(Behaviour::Gate);
    let under_way = front.post(texts_of(&["a"]).to_string()).send_meanwhile();
    front.stub.held(1).await;
    front.purge("").await;
    front.stub.release(1);
    assert_eq!(under_way.await.expect("it must end").vectors(), tiny(&["a"]));
    assert_eq!(front.embed(&["a"]).await.cache(), "miss");
}

#[tokio::test]
async fn a_cached_reply_expires_with_its_oldest_vector() {
    let front = Front::with(&[("cache.ttl", "60s")]).await;
    front.embed(&["old"]).await;
    front.pass(Duration::from_secs(50));
    front.embed(&["young"]).await;
    rendered(&front, &["young", "old"]).await;
    front.pass(Duration::from_secs(10));
    let mixed = front.embed(&["young", "old"]).await;
    assert_eq!((mixed.vectors(), mixed.sources()), (tiny(&["young", "old"]), "memory=1, upstream=1"));
}

#[tokio::test]
async fn a_cached_reply_is_not_served_to_another_credential_namespace_or_path() {
    let front = Front::start().await;
    rendered(&front, &["a"]).await;
    let body = texts_of(&["a"]).to_string();
    assert_eq!(front.post(body.clone()).key("sk-other").send().await.cache(), "miss");
    assert_eq!(front.post(body.clone()).header("x-vecho-namespace", "n").send().await.cache(), "miss");
    let versioned = front.post_to("/v1/embeddings?api-version=2", body).send().await;
    assert_eq!(versioned.cache(), "miss");
}

#[tokio::test]
async fn in_the_shared_scope_a_cached_reply_is_not_served_to_a_wrong_key() {
    let front = Front::with(&[("cache.scope", "shared")]).await;
    front.stub.accept_keys(["sk-good"]);
    let ask = |key: &str| front.post(texts_of(&["a"]).to_string()).key(key);
    for _ in 0..3 {
        ask("sk-good").send().await;
    }
    assert_eq!(front.metric(SERVED).await.to_string(), "1");
    assert_eq!(ask("sk-wrong").send().await.status, 401);
}

#[tokio::test]
async fn replies_with_mocks_or_fetched_vectors_are_never_cached() {
    let front = Front::with(&[("fallback.mode", "mock")]).await;
    front.embed(&["known"]).await;
    front.embed(&["known", "new"]).await;
    front.stub.down().await;
    for _ in 0..2 {
        front.embed(&["known", "mocked"]).await;
    }
    assert_eq!(front.metric(r#"vecho_cache_entries{tier="answers"}"#).await.to_string(), "0");
}
