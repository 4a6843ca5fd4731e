//! Compression of answers: callers that accept a coding get the same bytes, and everything else stays as it is.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::harness::client::{Answer, Client, raw};
use crate::harness::encode::{decode, encode};
use crate::harness::front::texts_of;
use crate::harness::socket::Socket;
use crate::harness::{Behaviour, Front};

/// A model with 1,536 dimensions.
const SMALL: &str = "text-embedding-3-small";

/// The codings that vecho offers.
const CODINGS: [&str; 3] = ["zstd", "br", "gzip"];

async fn front() -> Front {
    Front::with(&[("compression", "on")]).await
}

fn request(inputs: usize, encoding: &str) -> Value {
    let texts: Vec<String> = (0..inputs).map(|number| format!("text {number}")).collect();
    json!({"model": SMALL, "input": texts, "encoding_format": encoding})
}

async fn accepting(front: &Front, accepted: &str, body: &Value) -> Answer {
    front.post(body.to_string()).header("accept-encoding", accepted).send().await
}

/// Returns the body of an answer in this coding, after checks of its headers.
fn plain_body(coding: &str, answer: &Answer) -> Vec<u8> {
    let headers = ["content-encoding", "vary", "content-type", "etag"].map(|name| answer.header(name));
    assert_eq!(headers, [Some(coding), Some("accept-encoding"), Some("application/json"), None]);
    if let Some(length) = answer.header("content-length") {
        assert_eq!(length.parse(), Ok(answer.body.len()));
    }
    decode(coding, &answer.body)
}

async fn compressed_answers_equal_plain_ones(coding: &str, encoding: &str) {
    let front = front().await;
    // One vector is written at once, and more than a few are written while they are sent.
    for (inputs, has_length) in [(1, true), (100, false)] {
        front.purge("").await;
        let body = request(inputs, encoding);
        let mut compressed = Vec::new();
        // The answers come from the upstream, from memory and, twice, from the reply cache.
        for cache in ["miss", "hit", "hit", "hit"] {
            let answer = accepting(&front, coding, &body).await;
            assert_eq!((answer.status, answer.cache()), (200, cache), "{inputs}");
            assert_eq!(answer.header("content-length").is_some(), has_length, "{inputs}");
            compressed.push(answer);
        }
        let plain = front.ask(&body).await;
        assert_eq!((plain.header("content-encoding"), plain.header("vary")), (None, Some("accept-encoding")));
        for answer in compressed {
            assert!(plain_body(coding, &answer) == plain.body, "{inputs}");
            let (percent, max_percent) = (answer.body.len() * 100 / plain.body.len(), 80);
            assert!(percent < max_percent, "{inputs}: {percent} %");
        }
    }
}

#[tokio::test]
async fn compressed_answers_with_floats_hold_the_bytes_of_plain_ones() {
    for coding in CODINGS {
        compressed_answers_equal_plain_ones(coding, "float").await;
    }
}

#[tokio::test]
async fn compressed_answers_with_base64_hold_the_bytes_of_plain_ones() {
    for coding in CODINGS {
        compressed_answers_equal_plain_ones(coding, "base64").await;
    }
}

#[tokio::test]
async fn small_answers_are_compressed_only_for_callers_that_refuse_plain_ones() {
    let front = front().await;
    let plain = front.embed(&["a"]).await;
    assert!(plain.body.len() < 1024);
    for coding in CODINGS {
        let allowing = accepting(&front, coding, &texts_of(&["a"])).await;
        assert_eq!((allowing.header("content-encoding"), &allowing.body), (None, &plain.body));
        let refusing = accepting(&front, &format!("{coding}, identity;q=0"), &texts_of(&["a"])).await;
        assert_eq!(plain_body(coding, &refusing), plain.body);
    }
}

#[tokio::test]
async fn callers_get_plain_answers_if_they_refuse_the_codings_or_prefer_plain_ones() {
    let front = front().await;
    let body = request(1, "float");
    let plain = front.ask(&body).await;
    for accepted in ["", "identity", "gzip;q=0", "deflate, odd", "gzip;q=0, zstd;q=0, br;q=0, *", "*;q=0"] {
        let answer = accepting(&front, accepted, &body).await;
        assert_eq!((answer.header("content-encoding"), &answer.body), (None, &plain.body), "{accepted}");
        assert_eq!(answer.header("vary"), Some("accept-encoding"), "{accepted}");
    }
    let preferring = accepting(&front, "gzip;q=0.5, identity", &body).await;
    assert_eq!((preferring.header("content-encoding"), &preferring.body), (None, &plain.body));
}

#[tokio::test]
async fn callers_get_the_coding_that_they_prefer() {
    let front = front().await;
    let body = request(1, "float");
    let plain = front.ask(&body).await;
    for (accepted, coding) in [
        ("gzip, deflate", "gzip"),
        ("GZIP;q=0.1, deflate;q=1", "gzip"),
        ("x-gzip", "gzip"),
        ("odd, gzip;q=0.001", "gzip"),
        ("gzip, zstd;q=0.9", "gzip"),
        ("br, gzip, deflate", "br"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("*", "zstd"),
    ] {
        assert_eq!(plain_body(coding, &accepting(&front, accepted, &body).await), plain.body, "{accepted}");
    }
}

#[tokio::test]
async fn callers_on_the_same_machine_get_plain_answers_by_default() {
    for settings in [&[][..], &[("compression", "auto")], &[("compression", "off")]] {
        let front = Front::with(settings).await;
        for cache in ["miss", "hit", "hit"] {
            let answer = accepting(&front, "gzip, identity;q=0", &request(1, "float")).await;
            assert_eq!((answer.cache(), answer.header("content-encoding")), (cache, None), "{settings:?}");
            assert_eq!(answer.header("vary"), None, "{settings:?}");
        }
    }
}

#[tokio::test]
async fn callers_that_wait_for_one_call_get_answers_in_their_own_codings() {
    let front = front().await;
    front.stub.next(Behaviour::Gate);
    let body = request(1, "float");
    let ask = |accepted: &str| front.post(body.to_string()).header("accept-encoding", accepted).send_meanwhile();
    let (zipped, plain, dense) = (ask("gzip"), ask("identity"), ask("zstd"));
    front.stub.held(1).await;
    front.reaches("vecho_requests_in_flight", 3.0).await;
    front.stub.release(1);
    let [zipped, plain, dense] =
        [zipped.await, plain.await, dense.await].map(|answer| answer.expect("the task must not panic"));
    assert_eq!(plain.header("content-encoding"), None);
    assert!(plain_body("gzip", &zipped) == plain.body && plain_body("zstd", &dense) == plain.body);
    assert_eq!(front.calls(), 1);
}

#[tokio::test]
async fn compressed_mocks_and_stale_answers_keep_their_marks() {
    let settings =
        [("compression", "on"), ("fallback.mode", "mock"), ("retry.max_attempts", "1"), ("cache.ttl", "60s")];
    let front = Front::with(&settings).await;
    front.ask(&request(1, "float")).await;
    front.pass(Duration::from_mins(2));
    front.stub.down().await;
    let stale = accepting(&front, "gzip", &request(1, "float")).await;
    assert_eq!((stale.cache(), stale.sources()), ("stale", "stale=1"));
    assert!(stale.header("x-vecho-fallback-reason").is_some());
    let mock = accepting(&front, "gzip", &request(2, "float")).await;
    assert_eq!(mock.cache(), "mock");
    let body: Value = serde_json::from_slice(&plain_body("gzip", &mock)).expect("it is JSON");
    assert_eq!(body["vecho"]["mock"], json!([1]));
    plain_body("gzip", &stale);
}

#[tokio::test]
async fn errors_are_not_compressed() {
    let front = front().await;
    let long = "long ".repeat(1_000);
    let error = json!({"error": {"message": long, "type": "x", "param": null, "code": null}}).to_string();
    front.stub.next(Behaviour::Status { code: 422, headers: Vec::new(), body: error.clone() });
    let refused = accepting(&front, "gzip", &request(1, "float")).await;
    assert_eq!((refused.status, refused.header("content-encoding"), &refused.body[..]), (422, None, error.as_bytes()));
    let uncached = front.post(request(1, "float").to_string()).header("accept-encoding", "gzip, identity;q=0");
    let uncached = uncached.header("cache-control", "only-if-cached").send().await;
    assert_eq!((uncached.error().1, uncached.header("content-encoding")), (json!("not_cached"), None));
}

#[tokio::test]
async fn responses_of_the_upstream_keep_their_coding() {
    let front = front().await;
    // A request with an unknown member passes through, and so does its answer.
    let unknown = json!({"model": SMALL, "input": "a", "odd": 1});
    let bypass = accepting(&front, "gzip", &unknown).await;
    assert_eq!((bypass.cache(), bypass.header("content-encoding"), bypass.header("vary")), ("bypass", None, None));
    assert_eq!(bypass.body, front.ask(&unknown).await.body);
    front.stub.next(Behaviour::Encoded("gzip"));
    let encoded = accepting(&front, "zstd", &unknown).await;
    assert_eq!((encoded.cache(), encoded.header("content-encoding")), ("bypass", Some("gzip")));
    assert_eq!(encoded.body, encode("gzip", &bypass.body));
    for (method, path) in [(Method::GET, "/v1/models"), (Method::HEAD, "/v1/models"), (Method::HEAD, "/v1/embeddings")]
    {
        let mut asked = raw(method.clone(), &front.url(path), "");
        asked.headers_mut().insert("accept-encoding", "gzip".parse().expect("it is a value"));
        let answer = Client::new().send(asked).await.expect("it is answered");
        assert_eq!((answer.header("content-encoding"), answer.header("vary")), (None, None), "{method} {path}");
    }
}

fn raw_request(body: &Value, version: &str) -> String {
    let body = body.to_string();
    format!(
        "POST /v1/embeddings HTTP/{version}\r\nhost: x\r\naccept-encoding: gzip\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn a_connection_serves_further_requests_after_compressed_answers() {
    let front = front().await;
    let mut socket = Socket::connect(front.public()).await;
    for _ in 0..3 {
        socket.send(raw_request(&request(50, "float"), "1.1")).await;
        let head = socket.read_until("\r\n\r\n").await;
        assert!(head.contains("content-encoding: gzip") && head.contains("transfer-encoding: chunked"), "{head}");
        socket.read_until("\r\n0\r\n\r\n").await;
    }
    assert_eq!(front.calls(), 1);
}

#[tokio::test]
async fn a_caller_that_leaves_frees_the_memory_of_a_compressed_answer() {
    let front = front().await;
    let body = request(500, "float");
    for _ in 0..2 {
        let mut socket = Socket::connect(front.public()).await;
        socket.send(raw_request(&body, "1.1")).await;
        let head = socket.read_until("\r\n\r\n").await;
        assert!(head.contains("content-encoding: gzip"), "{head}");
        assert!(front.metric("vecho_body_bytes_in_flight").await > 0.0);
        drop(socket);
        for series in ["vecho_requests_in_flight", "vecho_body_bytes_in_flight", "vecho_vector_bytes_in_flight"] {
            front.falls_to_zero(series).await;
        }
    }
}
