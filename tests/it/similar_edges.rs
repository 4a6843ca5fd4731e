//! Similarity requests in several parts: late faults, a change of the model, stale vectors, and what is paid.

use serde_json::json;

use crate::harness::front::TINY;
use crate::harness::{Behaviour, Front, Stub};
use crate::similar::{PATH, error, similar};

const SMALL: &str = "text-embedding-3-small";
const UPSTREAM: &str = r#"vecho_inputs_total{source="upstream"}"#;
const MEMORY: &str = r#"vecho_inputs_total{source="memory"}"#;

fn texts(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

/// Returns a text of more than 8192 tokens.
fn long() -> String {
    "word ".repeat(9_000)
}

#[tokio::test]
async fn a_too_long_entry_is_named_before_anything_is_sent() {
    let front = Front::with(&[("limits.long_input", "reject")]).await;
    let mut candidates = texts(1_500);
    candidates.push(long());
    let late = json!({"model": SMALL, "query": "q", "candidates": candidates});
    let first = json!({"model": SMALL, "query": [7, 8], "candidates": [long()]});
    let query = json!({"model": SMALL, "query": long(), "candidates": ["a"]});
    for (body, param, place) in
        [(late, "candidates", "candidates[1500]"), (first, "candidates", "candidates[0]"), (query, "query", "query")]
    {
        let answer = similar(&front, &body).await;
        let (message, fault) = error(&answer);
        assert_eq!(message, format!("{place} has more than 8192 tokens (limits.long_input)."));
        assert_eq!((answer.status, &fault["code"]), (400, &json!("context_length_exceeded")));
        assert_eq!(fault["param"], param);
    }
    assert_eq!(front.calls(), 0);
    assert!((front.metric(r#"vecho_rejected_total{reason="long_input"}"#).await - 3.0).abs() < f64::EPSILON);
    let unlimited = json!({"model": TINY, "query": "q", "candidates": [long()]});
    similar(&front, &unlimited).await;
    assert_ne!(front.calls(), 0, "the length of this model is unknown, so the service decides");
}

#[tokio::test]
async fn a_fault_in_a_late_candidate_is_named_before_anything_is_sent() {
    let front = Front::start().await;
    let candidates: Vec<String> = (0..9_001).map(|number| format!("\"{number}\"")).collect();
    let body = |last: &str| format!(r#"{{"model":"tiny","query":"q","candidates":[{},{last}]}}"#, candidates.join(","));
    let answer = front.post_to(PATH, body(r#""half \ud83e""#)).send().await;
    let (message, fault) = error(&answer);
    assert_eq!(message, "candidates must not hold half of a surrogate pair, and entry 9001 does.");
    assert_eq!((answer.status, &fault["param"]), (400, &json!("candidates")));
    let query = r#"{"model":"tiny","query":"\udd80","candidates":["a"]}"#;
    let (message, fault) = error(&front.post_to(PATH, query).send().await);
    assert_eq!(message, "query must not hold half of a surrogate pair.");
    assert_eq!((&fault["param"], front.calls()), (&json!("query"), 0));
    assert_eq!(front.post_to(PATH, body(r#""whole \ud83e\udd80""#)).send().await.status, 200);
}

#[tokio::test]
async fn parameters_outside_of_teis_form_are_a_member_of_the_embeddings_request() {
    let body = json!({"model": TINY, "query": "q", "candidates": ["a"], "parameters": {"prompt_name": "query"}});
    let front = Front::start().await;
    let (message, _) = error(&similar(&front, &body).await);
    assert_eq!(message, "parameters may change the vectors. Remove it, or name it in cache.extra_fields.");
    assert_eq!(front.calls(), 0);
    let front = Front::with(&[("cache.extra_fields", "parameters")]).await;
    assert_eq!(similar(&front, &body).await.status, 200);
    assert_eq!(front.stub.embedding_calls()[0].json()["parameters"], json!({"prompt_name": "query"}));
    let plain = json!({"model": TINY, "query": "q", "candidates": ["a"], "parameters": null});
    assert_eq!(similar(&front, &plain).await.cache(), "miss", "they are part of the key");
}

#[tokio::test]
async fn a_ranking_of_stale_vectors_says_so_with_the_reason() {
    let settings = [("fallback.mode", "stale"), ("retry.max_attempts", "1"), ("cache.ttl", "1h")];
    let front = Front::with(&settings).await;
    let body = json!({"model": TINY, "query": "q", "candidates": ["a", "b"]});
    let fresh = similar(&front, &body).await;
    assert_eq!((fresh.cache(), fresh.header("x-vecho-fallback-reason")), ("miss", None));
    front.pass(std::time::Duration::from_hours(2));
    front.stub.always(Behaviour::Status { code: 503, headers: Vec::new(), body: "down".to_owned() });
    let stale = similar(&front, &body).await;
    assert_eq!((stale.status, stale.cache(), stale.sources()), (200, "stale", "stale=3"));
    assert_eq!(stale.header("x-vecho-fallback-reason"), Some("status; code=503"));
    assert_eq!(stale.json()["data"], fresh.json()["data"]);
    let strict = front.post_to(PATH, body.to_string()).header("x-vecho-fallback", "error").send().await;
    assert_eq!(strict.status, 503, "the caller may forbid it");
}

#[tokio::test]
async fn a_model_change_between_two_parts_gives_scores_of_one_model() {
    let front = Front::start().await;
    let mut calls = 0;
    front.stub.decide(move |_| {
        calls += 1;
        Behaviour::OtherModel(if calls == 1 { "old" } else { "new" }.to_owned())
    });
    let candidates: Vec<String> = (0..1_500).map(|number| number.to_string()).collect();
    let body = json!({"model": TINY, "query": "q", "candidates": candidates});
    let answer = similar(&front, &body).await;
    assert_eq!(answer.json()["model"], "new");
    let vector = |text: &str| Stub::vector("new", Some(8), text);
    for (index, score) in crate::similar::ranking(&answer) {
        assert!((score - crate::similar::cosine(&vector("q"), &vector(&candidates[index]))).abs() < 1e-6, "{index}");
    }
}

/// Returns an upstream whose model changes after the first call.
async fn changing() -> Front {
    let front = Front::start().await;
    let mut calls = 0;
    front.stub.decide(move |_| {
        calls += 1;
        Behaviour::OtherModel(if calls == 1 { "old" } else { "new" }.to_owned())
    });
    front
}

#[tokio::test]
async fn a_second_attempt_counts_each_input_once_and_all_paid_tokens() {
    let front = changing().await;
    let body = json!({"model": TINY, "query": "q", "candidates": texts(1_500)});
    let answer = similar(&front, &body).await;
    assert_eq!(answer.sources(), "memory=477, upstream=1024", "only vectors of the old model are fetched again");
    let counted = [front.metric(UPSTREAM).await, front.metric(MEMORY).await];
    assert!((counted[0] - 1_024.0).abs() < f64::EPSILON && (counted[1] - 477.0).abs() < f64::EPSILON, "{counted:?}");
    let billed = answer.tokens().split(',').next().expect("a list").replace("billed=", "");
    let usage: u64 = answer.json()["usage"]["total_tokens"].as_u64().expect("a number");
    assert!(billed.parse::<u64>().expect("a number") > usage, "both attempts are paid: {billed} of {usage}");
}

#[tokio::test]
async fn a_second_attempt_with_no_cache_fetches_nothing_twice() {
    let front = changing().await;
    let body = json!({"model": TINY, "query": "q", "candidates": texts(1_500)});
    let answer = front.post_to(PATH, body.to_string()).header("cache-control", "no-cache").send().await;
    assert_eq!((answer.status, answer.json()["model"].clone()), (200, json!("new")));
    assert_eq!(front.stub.inputs_sent(), 1_501 + 1_024);
}

#[tokio::test]
async fn an_upstream_without_embeddings_is_not_called_for_them_again_for_some_minutes() {
    let front = Front::start().await;
    front.stub.when(
        |call| call.route() == "/v1/similarity",
        Behaviour::Status { code: 200, headers: Vec::new(), body: "[0.5]".to_owned() },
    );
    let refusal = |code| Behaviour::Status { code, headers: Vec::new(), body: "{}".to_owned() };
    front.stub.always(refusal(404));
    let body = json!({"inputs": {"source_sentence": "q", "sentences": ["a"]}}).to_string();
    let ask = async |body: &str| front.post_to("/similarity", body.to_owned()).send().await;
    for _ in 0..3 {
        assert_eq!(&ask(&body).await.body[..], b"[0.5]");
    }
    assert_eq!(front.calls(), 1);
    let named = json!({"model": TINY, "inputs": {"source_sentence": "q", "sentences": ["a"]}}).to_string();
    ask(&named).await;
    assert_eq!(front.calls(), 2, "another model may have embeddings");
    front.pass(std::time::Duration::from_mins(5));
    front.stub.always(Behaviour::Normal);
    assert_eq!(ask(&body).await.cache(), "miss");
    front.stub.always(refusal(400));
    let other = body.replace("\"a\"", "\"b\"");
    assert_eq!(&ask(&other).await.body[..], b"[0.5]");
    assert_eq!(ask(&body).await.cache(), "hit", "one refused text does not end the ranking of others");
}
