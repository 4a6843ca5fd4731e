//! Similarity requests: rankings by cosine of the upstream's own vectors, through the cache.

use serde_json::{Value, json};

use crate::harness::client::Answer;
use crate::harness::front::{TINY, tiny};
use crate::harness::stub::Input;
use crate::harness::{Behaviour, Front, Stub};

pub(crate) const PATH: &str = "/v1/vecho/similar";

pub(crate) async fn similar(front: &Front, body: &Value) -> Answer {
    front.post_to(PATH, body.to_string()).send().await
}

pub(crate) fn cosine(one: &[f32], other: &[f32]) -> f64 {
    let dot =
        |one: &[f32], other: &[f32]| one.iter().zip(other).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    dot(one, other) / (dot(one, one) * dot(other, other)).sqrt()
}

/// Returns the cosines of the upstream's vectors, best first, with the places of the candidates.
fn expected(query: impl Into<Input>, candidates: &[&str]) -> Vec<(usize, f64)> {
    let query = Stub::vector(TINY, None, query);
    let mut ranked: Vec<_> = tiny(candidates).iter().map(|candidate| cosine(&query, candidate)).enumerate().collect();
    ranked.sort_by(|one, other| other.1.total_cmp(&one.1));
    ranked
}

/// Returns the message and the other members of an error.
pub(crate) fn error(answer: &Answer) -> (String, Value) {
    let error = answer.json()["error"].clone();
    (error["message"].as_str().expect("a message").to_owned(), error)
}

pub(crate) fn ranking(answer: &Answer) -> Vec<(usize, f64)> {
    assert_eq!(answer.status, 200, "{:?}", answer.json());
    let item = |item: &Value| {
        assert_eq!(item.as_object().map(serde_json::Map::len), Some(2), "{item}");
        let index = usize::try_from(item["index"].as_u64().expect("an index")).expect("a small number");
        (index, item["score"].as_f64().expect("a score"))
    };
    answer.json()["data"].as_array().expect("a list").iter().map(item).collect()
}

#[track_caller]
fn assert_ranked(answer: &Answer, expected: &[(usize, f64)]) {
    let found = ranking(answer);
    let places = |ranked: &[(usize, f64)]| ranked.iter().map(|(index, _)| *index).collect::<Vec<_>>();
    assert_eq!(places(&found), places(expected));
    for ((_, found), (_, expected)) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }
}

#[tokio::test]
async fn candidates_are_ranked_by_the_cosine_of_the_upstreams_vectors() {
    let front = Front::start().await;
    let candidates = ["a", "b", "c", "d", "e"];
    let body = json!({"model": TINY, "query": "q", "candidates": candidates});
    let first = similar(&front, &body).await;
    assert_ranked(&first, &expected("q", &candidates));
    assert_eq!((first.cache(), first.sources(), front.calls()), ("miss", "upstream=6", 1), "one call for all");
    assert_eq!(first.json()["object"], "list");
    assert_eq!(first.json()["model"], TINY);
    let second = similar(&front, &body).await;
    assert_eq!(second.json(), first.json());
    assert_eq!((second.cache(), second.sources(), front.calls()), ("hit", "memory=6", 1));
    assert_eq!(second.tokens(), "billed=0, saved=6");
    assert_eq!(first.json()["usage"], json!({"prompt_tokens": 6, "total_tokens": 6}));
}

#[tokio::test]
async fn similarity_and_embeddings_requests_share_their_entries() {
    let front = Front::start().await;
    front.embed(&["a", "q"]).await;
    let body = json!({"model": TINY, "query": "q", "candidates": ["a", "b"]});
    assert_eq!(similar(&front, &body).await.sources(), "memory=2, upstream=1");
    assert_eq!(front.embed(&["b"]).await.cache(), "hit");
    let rootless = front.post_to("/vecho/similar", body.to_string()).send().await;
    assert_eq!(rootless.cache(), "hit", "the base URL without /v1 has the same entries");
    assert_eq!(front.texts_sent(), [vec!["a", "q"], vec!["b"]]);
}

#[tokio::test]
async fn top_k_and_threshold_limit_the_ranking() {
    let front = Front::start().await;
    let candidates = ["a", "b", "c", "d", "e", "f"];
    let all = expected("q", &candidates);
    let ask = async |members: Value| {
        let mut body = json!({"model": TINY, "query": "q", "candidates": candidates});
        body.as_object_mut().expect("an object").extend(members.as_object().expect("an object").clone());
        similar(&front, &body).await
    };
    assert_ranked(&ask(json!({"top_k": 2})).await, &all[..2]);
    assert_ranked(&ask(json!({"top_k": 100})).await, &all);
    assert_ranked(&ask(json!({"top_k": null, "threshold": null})).await, &all);
    let middle = all[2].1 - 1e-4;
    assert_ranked(&ask(json!({"threshold": middle})).await, &all[..3]);
    assert_ranked(&ask(json!({"threshold": middle, "top_k": 1})).await, &all[..1]);
    assert_ranked(&ask(json!({"threshold": 1})).await, &[]);
}

#[tokio::test]
async fn a_query_may_be_tokens_or_a_vector() {
    let front = Front::start().await;
    let candidates = ["a", "b", "c"];
    let tokens = json!({"model": TINY, "query": [7, 8], "candidates": candidates});
    assert_ranked(&similar(&front, &tokens).await, &expected([7, 8], &candidates));
    let vector = Stub::vector(TINY, None, "q");
    let by_vector = json!({"model": TINY, "query": vector, "candidates": candidates});
    let answer = similar(&front, &by_vector).await;
    assert_ranked(&answer, &expected("q", &candidates));
    assert_eq!(answer.sources(), "memory=3", "a vector is not embedded");
    let short = json!({"model": TINY, "query": [0.5, 0.5], "candidates": candidates});
    let (message, fault) = error(&similar(&front, &short).await);
    assert_eq!(message, "query has 2 components, and the model's vectors have 8.");
    assert_eq!(fault["param"], "query");
    let token_candidates = json!({"model": TINY, "query": "q", "candidates": [[7, 8], [9]]});
    let ranked = ranking(&similar(&front, &token_candidates).await);
    let query = Stub::vector(TINY, None, "q");
    for (index, score) in ranked {
        let candidate = Stub::vector(TINY, None, [&[7, 8][..], &[9]][index]);
        assert!((score - cosine(&query, &candidate)).abs() < 1e-6);
    }
}

#[tokio::test]
async fn members_that_shape_vectors_go_upstream_and_join_the_key() {
    let front = Front::start().await;
    let candidates = ["a", "b", "c"];
    let body = json!({"model": TINY, "query": "q", "candidates": candidates, "dimensions": 4, "user": "u"});
    let found = ranking(&similar(&front, &body).await);
    let vector = |text| Stub::vector(TINY, Some(4), text);
    for (index, score) in found {
        assert!((score - cosine(&vector("q"), &vector(candidates[index]))).abs() < 1e-6);
    }
    let sent = front.stub.embedding_calls()[0].json();
    assert_eq!((&sent["dimensions"], &sent["user"]), (&json!(4), &json!("u")));
    let other = json!({"model": TINY, "query": "q", "candidates": candidates, "input_type": "document"});
    assert_eq!(similar(&front, &other).await.cache(), "miss");
    assert_eq!(front.stub.embedding_calls()[1].json()["input_type"], "document");
}

#[tokio::test]
async fn controls_and_credentials_count_as_for_embeddings() {
    let front = Front::start().await;
    let body = json!({"model": TINY, "query": "q", "candidates": ["a"]}).to_string();
    let only = front.post_to(PATH, body.clone()).header("cache-control", "only-if-cached").send().await;
    assert_eq!((only.status, error(&only).1["code"].clone()), (504, json!("not_cached")));
    assert_eq!(front.calls(), 0);
    front.post_to(PATH, body.clone()).key("one").send().await;
    let other = front.post_to(PATH, body.clone()).key("two").send().await;
    assert_eq!(other.cache(), "miss", "callers with different keys share nothing");
    assert_eq!(front.stub.embedding_calls()[1].header("authorization"), Some("Bearer two"));
    let own = front.post_to(PATH, body.clone()).key("two").header("x-vecho-namespace", "n").send().await;
    assert_eq!(own.cache(), "miss");
    let again = front.post_to(PATH, body.clone()).key("two").header("cache-control", "no-cache").send().await;
    assert_eq!(again.cache(), "miss");
    let bad = front.post_to(PATH, body).header("cache-control", "max-age=x").send().await;
    assert_eq!(bad.status, 400);
}

#[tokio::test]
async fn many_candidates_are_embedded_in_parts_and_ranked_together() {
    let front = Front::start().await;
    let candidates: Vec<String> = (0..5_000).map(|number| format!("candidate {number}")).collect();
    let texts: Vec<&str> = candidates.iter().map(String::as_str).collect();
    let body = json!({"model": TINY, "query": "q", "candidates": texts, "top_k": 50});
    assert_ranked(&similar(&front, &body).await, &expected("q", &texts)[..50]);
    assert_eq!(front.stub.inputs_sent(), 5_001);
    let most = front.stub.embedding_calls().iter().map(|call| call.inputs().len()).max();
    assert!(most <= Some(1_024), "{most:?} inputs in one call");
    let second = similar(&front, &body).await;
    assert_eq!(second.sources(), "memory=5001");
    assert_ranked(&second, &expected("q", &texts)[..50]);
}

#[tokio::test]
async fn faults_of_the_request_are_named_and_never_reach_the_upstream() {
    let front = Front::start().await;
    for (body, param) in [
        (json!({"model": TINY, "candidates": ["a"]}), json!("query")),
        (json!({"model": TINY, "query": "q"}), json!("candidates")),
        (json!({"query": "q", "candidates": ["a"]}), json!("model")),
        (json!({"model": TINY, "query": "q", "candidates": []}), json!("candidates")),
        (json!({"model": TINY, "query": "q", "candidates": ["a", ""]}), json!("candidates")),
        (json!({"model": TINY, "query": "q", "candidates": ["a"], "top_k": -1}), json!("top_k")),
        (json!({"model": TINY, "query": "q", "candidates": ["a"], "threshold": 3}), json!("threshold")),
        (json!({"model": TINY, "query": "q", "candidates": ["a"], "late_chunking": true}), Value::Null),
        (json!({"model": TINY, "query": "q", "candidates": [["a"]]}), json!("candidates")),
        (json!({"model": 7, "query": "q", "candidates": ["a"]}), Value::Null),
        (json!(["q"]), Value::Null),
    ] {
        let answer = similar(&front, &body).await;
        let (message, fault) = error(&answer);
        assert_eq!(
            (answer.status, &fault["type"], &fault["param"]),
            (400, &json!("invalid_request_error"), &param),
            "{body}"
        );
        assert!(message.ends_with('.'), "{message}");
    }
    let unread = front.post_to(PATH, "{}").without("content-type").send().await;
    assert_eq!(unread.status, 415);
    assert_eq!(front.stub.calls().len(), 0);
}

#[tokio::test]
async fn an_error_of_the_upstream_reaches_the_caller_and_is_never_a_mock() {
    let front = Front::with(&[("fallback.mode", "mock"), ("retry.max_attempts", "1")]).await;
    let body = json!({"model": TINY, "query": "q", "candidates": ["a", "b"]});
    front.stub.accept_keys(["right"]);
    let refused = similar(&front, &body).await;
    assert_eq!((refused.status, &error(&refused).1["code"]), (401, &json!("invalid_api_key")));
    front.stub.always(Behaviour::HangUp);
    let body = body.to_string();
    for _ in 0..8 {
        let failed = front.post_to(PATH, body.clone()).key("right").send().await;
        assert_eq!(failed.status, 502, "{:?}", failed.json());
    }
    front.stub.always(Behaviour::Garbage);
    let unreadable = front.post_to(PATH, body).key("right").send().await;
    assert_eq!((unreadable.status, error(&unreadable).1["code"].clone()), (502, json!("no_vectors")));
}

#[tokio::test]
async fn only_post_is_answered_at_vechos_own_path() {
    let front = Front::start().await;
    let url = front.url(PATH);
    let answer = crate::harness::Client::new().get(&url).await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    assert_eq!(front.stub.calls().len(), 0);
}

#[tokio::test]
async fn the_form_of_tei_gets_a_list_of_scores() {
    let front = Front::start().await;
    let candidates = ["a", "b", "c"];
    let body = json!({"inputs": {"source_sentence": "q", "sentences": candidates}, "parameters": {"truncate": false}});
    let vector = |text: &str| Stub::vector("text-embeddings-inference", None, text);
    for path in ["/similarity", PATH] {
        let answer = front.post_to(path, body.to_string()).send().await;
        let scores: Vec<f64> = serde_json::from_slice(&answer.body).expect("a list of numbers");
        assert_eq!(scores.len(), candidates.len());
        for (score, candidate) in scores.iter().zip(candidates) {
            assert!((score - cosine(&vector("q"), &vector(candidate))).abs() < 1e-6);
        }
    }
    assert_eq!(front.calls(), 1, "the second one is a hit");
}

#[tokio::test]
async fn a_request_at_teis_path_that_cannot_be_ranked_passes_through() {
    let front = Front::start().await;
    front.stub.when(
        |call| call.route() == "/v1/similarity",
        Behaviour::Status { code: 200, headers: Vec::new(), body: "[0.5]".to_owned() },
    );
    front.stub.always(Behaviour::Status { code: 404, headers: Vec::new(), body: "no such route".to_owned() });
    let prompted = json!({"inputs": {"source_sentence": "q", "sentences": ["a"]}, "parameters": {"prompt_name": "x"}});
    let plain = json!({"inputs": {"source_sentence": "q", "sentences": ["a"]}});
    let own = json!({"model": TINY, "query": "q", "candidates": ["a"]});
    for body in [prompted.to_string(), plain.to_string(), own.to_string(), "[1]".to_owned()] {
        let answer = front.post_to("/similarity", body.clone()).send().await;
        assert_eq!((answer.status, &answer.body[..]), (200, &b"[0.5]"[..]), "{body}");
        assert_eq!(answer.cache(), "bypass");
        let calls = front.stub.calls();
        let sent = calls.last().expect("a call");
        assert_eq!((sent.route(), &sent.body[..]), ("/v1/similarity", body.as_bytes()));
    }
}

#[tokio::test]
async fn parts_are_smaller_if_memory_is_short() {
    let front = Front::with(&[("memory.limit_mb", "32")]).await;
    let candidates: Vec<String> = (0..3_000).map(|number| format!("candidate {number}")).collect();
    let body = json!({"model": "text-embedding-3-small", "query": "q", "candidates": candidates, "top_k": 3});
    assert_eq!(ranking(&similar(&front, &body).await).len(), 3);
    assert_eq!(front.stub.inputs_sent(), 3_001, "no input is paid for twice");
}
