//! Wrong vectors are never stored: errors, mocks and implausible answers leave no entry.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::client::Answer;
use crate::harness::front::{TINY, texts_of, tiny};
use crate::harness::{Behaviour, Client, Front, Stub};

/// Returns a request for two texts with an explicit dimension, so vecho detects a wrong dimension at once.
fn asked(encoding: &str) -> Value {
    json!({"model": TINY, "input": ["a", "b"], "dimensions": 6, "encoding_format": encoding})
}

fn truth() -> Vec<Vec<f32>> {
    ["a", "b"].map(|text| Stub::vector(TINY, Some(6), text)).into()
}

fn assert_passed_on(answer: &Answer) {
    assert_eq!((answer.cache(), answer.header("x-vecho-bypass-reason")), ("bypass", Some("unreadable_answer")));
}

/// Checks that a wrong answer is forwarded unchanged, and that the next request goes upstream again and gets the
/// right one.
async fn assert_leaves_no_entry(lie: Behaviour, encoding: &str) {
    let front = Front::start().await;
    front.stub.next(lie.clone());
    let spoilt = front.ask(&asked(encoding)).await;
    assert_passed_on(&spoilt);
    front.stub.next(lie);
    let direct = Client::new().post(&format!("{}/embeddings", front.stub.base_url()), &asked(encoding)).await;
    assert_eq!((spoilt.status, &spoilt.body), (direct.status, &direct.body), "byte for byte as it came");
    assert_eq!(spoilt.header("content-type"), direct.header("content-type"));
    let again = front.ask(&asked(encoding)).await;
    assert_eq!((again.vectors(), again.cache(), again.sources()), (truth(), "miss", "upstream=2"));
    assert_eq!(front.ask(&asked(encoding)).await.cache(), "hit");
}

macro_rules! leaves_no_entry {
    ($($name:ident: $lie:expr, $encodings:expr;)+) => {
        $(#[tokio::test]
        async fn $name() {
            for encoding in $encodings {
                assert_leaves_no_entry($lie, encoding).await;
            }
        })+
    };
}

leaves_no_entry! {
    a_duplicate_index_leaves_no_entry: Behaviour::DuplicateIndex, ["float", "base64"];
    a_missing_item_leaves_no_entry: Behaviour::MissingItem, ["float", "base64"];
    a_surplus_item_leaves_no_entry: Behaviour::ExtraItem, ["float", "base64"];
    a_wrong_dimension_leaves_no_entry: Behaviour::WrongDimension, ["float", "base64"];
    a_number_that_is_not_finite_leaves_no_entry: Behaviour::Nan, ["float", "base64"];
    a_vector_of_zeros_leaves_no_entry: Behaviour::AllZero, ["float", "base64"];
    an_html_page_instead_of_an_answer_leaves_no_entry: Behaviour::Garbage, ["float", "base64"];
    float64_in_base64_leaves_no_entry: Behaviour::Float64Base64, ["base64"];
}

#[tokio::test]
async fn a_nan_vector_does_not_shift_the_vectors_behind_it() {
    let front = Front::start().await;
    let texts = ["a", "b", "c", "d"];
    front.stub.next(Behaviour::Nan);
    assert_passed_on(&front.embed(&texts).await);
    for text in texts {
        assert_eq!(front.embed(&[text]).await.vectors(), tiny(&[text]));
    }
}

#[tokio::test]
async fn floats_in_answer_to_base64_reach_the_client_as_base64() {
    let front = Front::start().await;
    for lie in [Behaviour::FloatsForBase64, Behaviour::Normal] {
        front.stub.next(lie);
        let answer = front.ask(&asked("base64")).await;
        assert!(answer.json()["data"][0]["embedding"].is_string(), "a client that asked base64 gets base64");
        assert_eq!(answer.vectors(), truth());
    }
    assert_eq!(front.calls(), 1, "and it is stored");
}

#[tokio::test]
async fn a_wrong_content_encoding_reaches_no_client() {
    let front = Front::start().await;
    front.stub.always(Behaviour::GzipLie);
    for _ in 0..3 {
        let answer = front.ask(&asked("base64")).await;
        assert_eq!((answer.vectors(), answer.header("content-encoding")), (truth(), None));
    }
}

fn status(code: u16) -> Behaviour {
    let body = json!({"error": {"message": format!("no {code}"), "type": "x", "param": null, "code": null}});
    Behaviour::Status { code, headers: vec![("x-mark", "seen".to_owned())], body: body.to_string() }
}

#[tokio::test]
async fn an_error_is_passed_on_verbatim_and_leaves_no_entry() {
    for code in [400, 401, 403, 404, 409, 422, 429, 500, 503] {
        let front = Front::with(&[("retry.max_attempts", "1"), ("pace.mode", "off")]).await;
        front.stub.next(status(code));
        let failed = front.embed(&["a", "b"]).await;
        assert_eq!((failed.status, failed.header("x-mark")), (code, Some("seen")));
        assert_eq!(failed.json()["error"]["message"], format!("no {code}"));
        assert_eq!(failed.header("set-cookie"), None);
        let again = front.embed(&["a", "b"]).await;
        assert_eq!((again.vectors(), again.sources()), (tiny(&["a", "b"]), "upstream=2"), "{code}");
    }
}

#[tokio::test]
async fn an_exhausted_quota_is_passed_on_at_once_and_leaves_no_entry() {
    let front = Front::start().await;
    front.stub.next(Behaviour::Quota);
    let refused = front.embed(&["a"]).await;
    assert_eq!((refused.status, refused.error().1), (429, json!("insufficient_quota")));
    assert_eq!(front.calls(), 1, "asking again would not help");
    assert_eq!(front.embed(&["a"]).await.vectors(), tiny(&["a"]));
}

#[tokio::test]
async fn an_error_for_a_part_of_a_batch_keeps_the_stored_part() {
    let front = Front::with(&[("retry.max_attempts", "1")]).await;
    front.embed(&["known"]).await;
    for _ in 0..2 {
        front.stub.next(status(400));
    }
    assert_eq!(front.embed(&["known", "new"]).await.status, 400);
    assert_eq!(front.calls(), 3, "the part and then the whole request were refused");
    let again = front.embed(&["known", "new"]).await;
    assert_eq!((again.vectors(), again.sources()), (tiny(&["known", "new"]), "memory=1, upstream=1"));
}

#[tokio::test]
async fn a_truncated_answer_leaves_no_entry() {
    let front = Front::with(&[("retry.max_attempts", "1")]).await;
    front.stub.always(Behaviour::CutBody);
    let failed = front.embed(&["a"]).await;
    assert_eq!((failed.status, failed.error().0.as_str()), (502, "server_error"));
    front.stub.always(Behaviour::Normal);
    let again = front.embed(&["a"]).await;
    assert_eq!((again.vectors(), again.cache()), (tiny(&["a"]), "miss"));
}

#[tokio::test]
async fn a_mock_is_never_stored() {
    let front = Front::with(&[("fallback.mode", "mock")]).await;
    front.stub.down().await;
    for _ in 0..3 {
        assert_eq!(front.embed(&["a"]).await.cache(), "mock");
    }
    front.stub.up().await;
    let again = front.embed(&["a"]).await;
    assert_eq!((again.vectors(), again.cache()), (tiny(&["a"]), "miss"));
}

#[tokio::test]
async fn a_mock_beside_stored_vectors_leaves_no_entry() {
    let front = Front::with(&[("fallback.mode", "mock")]).await;
    front.embed(&["known"]).await;
    front.stub.down().await;
    let mixed = front.embed(&["new", "known"]).await;
    assert_eq!((mixed.cache(), mixed.sources()), ("mock", "memory=1, mock=1"));
    assert_eq!(mixed.json()["vecho"], json!({"mock": [0]}));
    assert_eq!(mixed.vectors()[1], tiny(&["known"])[0]);
    front.stub.up().await;
    let again = front.embed(&["new", "known"]).await;
    assert_eq!((again.vectors(), again.cache()), (tiny(&["new", "known"]), "partial"));
}

#[tokio::test]
async fn an_unreadable_partial_answer_is_retried_with_the_original_request() {
    let front = Front::start().await;
    front.embed(&["known"]).await;
    front.stub.next(Behaviour::DuplicateIndex);
    let body = r#" {"input": [ "known", "new", "\u006eewer" ],  "model":"tiny" } "#;
    let answer = front.post(body).send().await;
    assert_eq!((answer.cache(), answer.vectors()), ("partial", tiny(&["known", "new", "newer"])));
    let calls = front.stub.embedding_calls();
    assert_eq!(calls.len(), 3, "the known one, the new ones, and the request as it is");
    assert_eq!(calls[2].body, body, "byte for byte");
    assert_eq!(front.embed(&["new", "newer"]).await.cache(), "hit", "its answer is stored");
}

#[tokio::test]
async fn an_unreadable_answer_to_a_rewritten_call_is_retried_with_the_original() {
    let front = Front::with(&[("upstream.encoding", "float")]).await;
    front.stub.next(Behaviour::Garbage);
    let body = r#"{"model":"tiny", "encoding_format":"base64", "input":["a"]}"#;
    let answer = front.post(body).send().await;
    assert_eq!((answer.cache(), answer.vectors()), ("miss", tiny(&["a"])));
    assert!(answer.json()["data"][0]["embedding"].is_string());
    let calls = front.stub.embedding_calls();
    assert_eq!((&calls[0].json()["encoding_format"], &calls[1].body[..]), (&json!("float"), body.as_bytes()));
}

#[tokio::test]
async fn an_unreadable_answer_for_repeated_inputs_is_retried_with_the_original() {
    let front = Front::start().await;
    front.stub.next(Behaviour::DuplicateIndex);
    let answer = front.embed(&["a", "b", "a"]).await;
    assert_eq!((answer.cache(), answer.vectors()), ("miss", tiny(&["a", "b", "a"])));
    assert_eq!(front.texts_sent(), [vec!["a", "b"], vec!["a", "b", "a"]], "the request itself had the last word");
}

#[tokio::test]
async fn texts_without_a_valid_vector_do_not_affect_others() {
    let front = Front::start().await;
    for number in 0..5 {
        front.stub.next(Behaviour::AllZero);
        assert_passed_on(&front.embed(&[&format!("empty {number}")]).await);
    }
    let answer = front.embed(&["a"]).await;
    assert_eq!((answer.cache(), answer.vectors()), ("miss", tiny(&["a"])));
}

#[tokio::test]
async fn after_one_bad_base64_answer_floats_are_requested() {
    // Three half-precision floats; one byte less than an f32; invalid base64.
    for embedding in ["ADwAQABC", "AACAPwA=", "**"] {
        let front = Front::start().await;
        let ask = |text: &str| json!({"model": TINY, "input": text, "dimensions": 3, "encoding_format": "base64"});
        let item = json!({"object": "embedding", "index": 0, "embedding": embedding});
        let body = json!({"object": "list", "data": [item], "model": TINY}).to_string();
        let headers = vec![("content-type", "application/json".to_owned())];
        front.stub.next(Behaviour::Status { code: 200, headers, body });
        assert_passed_on(&front.ask(&ask("a")).await);
        let answer = front.ask(&ask("a")).await;
        assert_eq!((answer.cache(), answer.vectors()), ("miss", vec![Stub::vector(TINY, Some(3), "a")]), "{embedding}");
        assert_eq!(front.stub.embedding_calls()[1].json()["encoding_format"], json!(null), "{embedding}");
    }
}

#[tokio::test]
async fn repeated_unreadable_answers_cause_a_temporary_bypass() {
    let front = Front::start().await;
    front.stub.always(Behaviour::DuplicateIndex);
    for _ in 0..5 {
        assert_passed_on(&front.embed(&["a", "b"]).await);
    }
    let body = r#"{"input":"a",   "model":"tiny"}"#;
    front.post(body).send().await;
    assert_eq!(front.stub.embedding_calls().last().expect("a call").body, body, "it is not rewritten any more");
    let explained = front.explain(body).await;
    assert_eq!((&explained["cacheable"], &explained["reason"]), (&json!(false), &json!("unreadable_answer")));
    front.stub.always(Behaviour::Normal);
    front.pass(Duration::from_mins(5));
    assert_eq!(front.ask(&texts_of(&["a"])).await.cache(), "miss");
    assert_eq!(front.embed(&["a"]).await.cache(), "hit");
}

/// Sends `lead`, and `joiner` while the fetch of `lead` is in flight. Their one call is answered with an HTML page.
async fn waiter_of_an_html_page(lead: &Value, joiner: &Value) -> (Front, Answer) {
    let front = Front::start().await;
    front.stub.next(Behaviour::All(vec![Behaviour::Gate, Behaviour::Garbage]));
    let lead = front.post(lead.to_string()).send_meanwhile();
    front.stub.held(1).await;
    let joiner = front.post(joiner.to_string()).send_meanwhile();
    front.reaches("vecho_requests_in_flight", 2.0).await;
    front.stub.release(1);
    assert_passed_on(&lead.await.expect("it must end"));
    (front, joiner.await.expect("it must end"))
}

#[tokio::test]
async fn a_waiter_with_another_encoding_does_not_get_the_unreadable_answer() {
    let asked = |encoding: &str| json!({"model": TINY, "input": "a", "encoding_format": encoding});
    let (front, joiner) = waiter_of_an_html_page(&asked("float"), &asked("base64")).await;
    assert_eq!(joiner.vectors(), tiny(&["a"]));
    assert_eq!(front.stub.embedding_calls()[1].json(), asked("base64"), "its own request went up");
}

#[tokio::test]
async fn a_waiter_with_more_texts_does_not_get_the_unreadable_answer() {
    let (_front, joiner) = waiter_of_an_html_page(&texts_of(&["a"]), &texts_of(&["a", "b"])).await;
    assert_eq!(joiner.vectors(), tiny(&["a", "b"]));
}
