//! Requests that vecho cannot parse completely are forwarded byte for byte and never stored. The reply names the
//! reason.

use bytes::Bytes;
use http::Method;
use serde_json::json;
use vecho::wire::MAX_INPUTS;

use crate::harness::client::{Answer, raw};
use crate::harness::front::{Ask, tiny};
use crate::harness::{Behaviour, Client, Front, Inside};

/// Sends the request twice. Both times the upstream receives exactly these bytes and the client receives exactly the
/// upstream's answer.
async fn assert_passes(front: &Front, body: &[u8], reason: &str, shape: impl Fn(Ask) -> Ask) {
    let shown = String::from_utf8_lossy(body);
    let url = format!("{}/embeddings", front.stub.base_url());
    let direct = Client::new().send(raw(Method::POST, &url, body.to_vec())).await.expect("the stub answers");
    for _ in 0..2 {
        let before = front.calls();
        let answer = shape(front.post(body.to_vec())).send().await;
        assert_eq!(front.calls(), before + 1, "{shown}");
        let call = front.stub.embedding_calls().pop().expect("a call");
        assert_eq!(call.body, Bytes::copy_from_slice(body), "{shown}");
        assert_eq!((answer.status, &answer.body), (direct.status, &direct.body), "{shown}");
        assert_eq!((answer.cache(), reason_of(&answer)), ("bypass", Some(reason)), "{shown}");
    }
}

/// Returns the bypass reason without the member or path that caused it.
fn reason_of(answer: &Answer) -> Option<&str> {
    answer.header("x-vecho-bypass-reason")?.split(';').next()
}

async fn assert_all_pass(reason: &str, bodies: &[&str]) {
    let front = Front::start().await;
    for body in bodies {
        assert_passes(&front, body.as_bytes(), reason, |ask| ask).await;
    }
}

#[tokio::test]
async fn a_request_with_an_unknown_field_passes_unchanged() {
    assert_all_pass(
        "unknown_field",
        &[
            r#"{"model":"tiny","input":["a","b"],"late_chunking":true}"#,
            r#"{ "model" : "tiny", "input" : "a", "nothing" : 0 }"#,
            r#"{"messages":[{"role":"user","content":"a"}],"model":"tiny"}"#,
            r#"{"model":"tiny","input":"a","Dimensions":4}"#,
            r#"{"model":"tiny","input":"a","output_dtype":"int8"}"#,
        ],
    )
    .await;
}

#[tokio::test]
async fn a_request_with_a_value_of_another_type_passes_unchanged() {
    assert_all_pass(
        "wrong_type",
        &[
            r#"{"model":"tiny","input":5}"#,
            r#"{"model":"tiny","input":null}"#,
            r#"{"model":"tiny","input":{"text":"a"}}"#,
            r#"{"model":"tiny","input":["a",1]}"#,
            r#"{"model":"tiny","input":[1,"a"]}"#,
            r#"{"model":"tiny","input":[[1],"a"]}"#,
            r#"{"model":"tiny","input":[-1]}"#,
            r#"{"model":"tiny","input":[4294967296]}"#,
            r#"{"model":"tiny","input":[1.5]}"#,
            r#"{"model":"tiny","input":[{"text":"a"}]}"#,
            r#"{"model":"tiny","input":"a","dimensions":"4"}"#,
            r#"{"model":"tiny","input":"a","dimensions":0}"#,
            r#"{"model":"tiny","input":"a","dimensions":-4}"#,
            r#"{"model":"tiny","input":"a","dimensions":4.5}"#,
            r#"{"model":"tiny","input":"a","dimensions":65537}"#,
            r#"{"model":"tiny","input":"a","encoding_format":"int8"}"#,
            r#"{"model":"tiny","input":"a","encoding_format":""}"#,
            r#"{"model":"tiny","input":"a","user":5}"#,
            r#"{"model":"tiny","input":"a","task":["a"]}"#,
            r#"{"model":"tiny","input":"a","input_type":["query","passage"]}"#,
            r#"{"model":7,"input":"a"}"#,
        ],
    )
    .await;
}

#[tokio::test]
async fn a_request_with_a_lone_surrogate_passes_unchanged() {
    assert_all_pass(
        "lone_surrogate",
        &[
            r#"{"model":"tiny","input":"\ud800"}"#,
            r#"{"model":"tiny","input":["a","tail \udc00 end"]}"#,
            r#"{"model":"tiny","input":"\ud800\u0041"}"#,
            r#"{"model":"tiny","input":"\ud83d and more"}"#,
        ],
    )
    .await;
}

#[tokio::test]
async fn a_request_with_a_duplicate_field_passes_unchanged() {
    assert_all_pass(
        "duplicate_key",
        &[
            r#"{"model":"tiny","input":"a","input":"b"}"#,
            r#"{"model":"tiny","model":"other","input":"a"}"#,
            r#"{"model":"tiny","input":"a","mod\u0065l":"other"}"#,
            r#"{"model":"tiny","input":"a","user":"x","user":"x"}"#,
            r#"{"model":"tiny","input":"a","task":{"x":1,"x":1}}"#,
        ],
    )
    .await;
}

#[tokio::test]
async fn a_body_that_is_not_one_json_object_passes_unchanged() {
    assert_all_pass(
        "not_json",
        &[
            "",
            "not json",
            r#"{"model":"tiny","input":"a""#,
            r#"{"model":"tiny","input":"a"} {"model":"tiny","input":"b"}"#,
            r#"{"model":"tiny","input":"a",}"#,
            r#"[{"model":"tiny","input":"a"}]"#,
            r#""text""#,
            "null",
        ],
    )
    .await;
    let front = Front::start().await;
    assert_passes(&front, b"{\"model\":\"tiny\",\"input\":\"\xff\xfe\"}", "not_json", |ask| ask).await;
}

#[tokio::test]
async fn a_request_with_an_empty_input_passes_unchanged() {
    assert_all_pass(
        "empty_input",
        &[
            r#"{"model":"tiny","input":["a",""]}"#,
            r#"{"model":"tiny","input":""}"#,
            r#"{"model":"tiny","input":[]}"#,
            r#"{"model":"tiny","input":[[]]}"#,
            r#"{"model":"tiny","input":[[1],[]]}"#,
        ],
    )
    .await;
}

#[tokio::test]
async fn an_empty_input_is_not_dropped_from_a_batch_with_cached_inputs() {
    let front = Front::start().await;
    front.embed(&["a"]).await;
    assert_passes(&front, br#"{"model":"tiny","input":["a",""]}"#, "empty_input", |ask| ask).await;
}

#[tokio::test]
async fn a_request_without_input_or_model_passes_unchanged() {
    assert_all_pass("no_input", &[r#"{"model":"tiny"}"#, r#"{"input":"a"}"#, "{}"]).await;
}

const PLAIN: &[u8] = br#"{"model":"tiny","input":"a"}"#;

#[tokio::test]
async fn a_body_of_another_content_type_passes_unchanged() {
    let front = Front::start().await;
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "application/octet-stream"] {
        assert_passes(&front, PLAIN, "content_type", |ask| ask.header("content-type", content_type)).await;
        let call = front.stub.embedding_calls().pop().expect("a call");
        assert_eq!(call.header("content-type"), Some(content_type));
    }
    assert_passes(&front, PLAIN, "content_type", |ask| ask.without("content-type")).await;
}

#[tokio::test]
async fn a_body_that_does_not_match_its_content_encoding_passes_unchanged() {
    let front = Front::start().await;
    for encoding in ["gzip", "br", "zstd"] {
        let bytes = b"\x1f\x8b\x08\x00 not really compressed";
        assert_passes(&front, bytes, "content_encoding", |ask| ask.header("content-encoding", encoding)).await;
        let call = front.stub.embedding_calls().pop().expect("a call");
        assert_eq!(call.header("content-encoding"), Some(encoding));
    }
}

#[tokio::test]
async fn answers_of_bypassed_requests_are_never_cached() {
    let front = Front::start().await;
    front.post(r#"{"model":"tiny","input":"a","nothing":1}"#).send().await;
    let understood = front.embed(&["a"]).await;
    assert_eq!((understood.vectors(), understood.cache()), (tiny(&["a"]), "miss"));
}

#[tokio::test]
async fn mock_and_stale_marks_of_an_upstream_vecho_are_kept_on_a_bypass() {
    let front = Front::start().await;
    for mark in ["mock", "stale"] {
        let headers = vec![("x-vecho-cache", mark.to_owned()), ("content-type", "application/json".to_owned())];
        front.stub.next(Behaviour::Status { code: 200, headers, body: "{}".to_owned() });
        let answer = front.post(r#"{"model":"tiny","input":"a","odd":1}"#.to_owned()).send().await;
        assert_eq!((answer.cache(), reason_of(&answer)), (mark, Some("unknown_field")));
    }
}

#[tokio::test]
async fn a_bypass_without_a_timely_answer_is_a_504() {
    let front = Front::with(&[("limits.request_timeout", "200ms")]).await;
    front.stub.always(Behaviour::Gate);
    let read = front.post(r#"{"model":"tiny","input":"a","nothing":1}"#);
    let unread = front.post(PLAIN).header("content-type", "text/plain");
    for (ask, reason) in [(read, "unknown_field"), (unread, "content_type")] {
        let answer = ask.send().await;
        let error = ("server_error".to_owned(), json!("upstream_timeout"));
        assert_eq!((answer.status, answer.error()), (504, error));
        assert_eq!(reason_of(&answer), Some(reason));
    }
    front.stub.always(Behaviour::Normal);
    front.stub.release(2);
}

#[tokio::test]
async fn a_bypass_forwards_the_callers_headers_but_not_those_of_vecho() {
    let front = Front::start().await;
    let ask = front.post(r#"{"model":"tiny","input":"a","nothing":1}"#).key("sk-mine");
    ask.header("x-vecho-namespace", "team").header("openai-organization", "org").send().await;
    let call = front.stub.embedding_calls().pop().expect("a call");
    assert_eq!(call.header("authorization"), Some("Bearer sk-mine"));
    assert_eq!(call.header("openai-organization"), Some("org"));
    assert_eq!(call.header("x-vecho-namespace"), None);
}

#[tokio::test]
async fn a_content_type_with_parameters_or_a_json_suffix_is_json() {
    let front = Front::start().await;
    for content_type in ["application/json; charset=utf-8", "Application/JSON", "application/vnd.mine+json"] {
        let ask =
            front.post(PLAIN.to_vec()).header("content-type", content_type).header("content-encoding", "identity");
        let answer = ask.send().await;
        assert_eq!(answer.vectors(), tiny(&["a"]));
        assert_ne!(answer.cache(), "bypass", "{content_type}");
    }
    assert_eq!(front.calls(), 1);
}

#[tokio::test]
async fn a_request_with_too_many_inputs_passes_unchanged() {
    let front = Front::start().await;
    let body = json!({"model": "tiny", "input": vec!["a"; MAX_INPUTS + 1]}).to_string();
    let answer = front.post(body.clone()).send().await;
    assert_eq!((answer.cache(), reason_of(&answer)), ("bypass", Some("too_many_inputs")));
    assert_eq!(front.stub.embedding_calls().pop().expect("a call").body, body);
    assert_eq!(front.metric(r#"vecho_bypass_total{reason="too_many_inputs"}"#).await.to_string(), "1");
}

#[tokio::test]
async fn the_built_in_mock_limits_the_dimension_of_its_vectors() {
    let vecho = Inside::start("mock:", &[]).await;
    let answer = vecho.embed(json!({"model": "m", "input": "a", "dimensions": u32::MAX})).await;
    assert_eq!((answer.status, reason_of(&answer)), (400, Some("wrong_type")));
    let largest = vecho.embed(json!({"model": "m", "input": "a", "dimensions": 65_536})).await;
    assert_eq!(largest.vectors()[0].len(), 65_536);
}
