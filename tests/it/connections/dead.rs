//! Kept-alive connections that are closed by the upstream, or that contain bytes of another answer.

use std::collections::BTreeSet;

use http::Method;
use serde_json::json;

use crate::harness::Inside;
use crate::harness::client::{Client, raw};
use crate::harness::scripted::{Act, Arrival, Scripted, ok, one_vector};

/// Answers the first request of each connection and closes or resets the connection on the second one.
fn once_per_connection(arrival: &Arrival) -> Act {
    match (arrival.number, arrival.head.contains("/embeddings")) {
        (0, true) => Act::Say(one_vector(0.25)),
        (0, false) => Act::Say(ok("{}")),
        _ if arrival.connection.is_multiple_of(2) => Act::Close,
        _ => Act::Reset,
    }
}

async fn send(vecho: &Inside, method: Method, path: &str, body: &'static str) -> u16 {
    let request = raw(method, &format!("http://{}{path}", vecho.public()), body);
    vecho.client.send(request).await.expect("an answer").status
}

#[tokio::test]
async fn passthrough_requests_survive_a_server_that_closes_reused_connections() {
    let server = Scripted::start(once_per_connection).await;
    let vecho = Inside::start(&server.base_url(), &[]).await;
    for round in 0..6 {
        for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::DELETE] {
            let status = send(&vecho, method.clone(), "/v1/models", "").await;
            assert_eq!(status, 200, "{method}, round {round}");
        }
        assert_eq!(send(&vecho, Method::POST, "/v1/chat/completions", "{}").await, 200, "round {round}");
    }
    let posts = server.arrivals().into_iter().filter(|arrival| arrival.head.starts_with("POST")).count();
    assert_eq!(posts, 6, "a request that may not be repeated goes up once");
}

#[tokio::test]
async fn embeddings_requests_survive_a_server_that_closes_reused_connections() {
    let server = Scripted::start(once_per_connection).await;
    let vecho = Inside::start(&server.base_url(), &[]).await;
    for round in 0..6 {
        let miss = vecho.embed(json!({"model": "tiny", "input": format!("text {round}")})).await;
        assert_eq!((miss.status, miss.cache()), (200, "miss"), "round {round}");
        let passed = vecho.embed(json!({"model": "tiny", "input": "text", "unknown_field": round})).await;
        assert_eq!((passed.status, passed.cache()), (200, "bypass"), "round {round}");
    }
}

#[tokio::test]
async fn concurrent_calls_survive_a_server_that_closes_reused_connections() {
    let server = Scripted::start(once_per_connection).await;
    let pairs = [("batch.max_inputs", "1"), ("fallback.mode", "error")];
    let vecho = Inside::start(&server.base_url(), &pairs).await;
    for round in 0..4 {
        let calls = (0..20).map(|number| vecho.embed(json!({"model": "tiny", "input": format!("{round} {number}")})));
        for answer in futures_util::future::join_all(calls).await {
            assert_eq!((answer.status, answer.cache()), (200, "miss"), "round {round}");
        }
    }
}

#[tokio::test]
async fn a_post_reuses_a_connection_only_if_the_server_is_known_to_keep_it() {
    let server = Scripted::start(|_| Act::Say(ok("{}"))).await;
    let vecho = Inside::start(&server.base_url(), &[]).await;
    let connection = || server.arrivals().last().expect("a request").connection;
    send(&vecho, Method::GET, "/v1/models", "").await;
    let kept = connection();
    send(&vecho, Method::POST, "/v1/chat/completions", "{}").await;
    assert_ne!(connection(), kept, "nothing is known of the server yet");
    send(&vecho, Method::GET, "/v1/models", "").await;
    assert_eq!(connection(), kept);
    send(&vecho, Method::POST, "/v1/chat/completions", "{}").await;
    assert_eq!(connection(), kept, "the server keeps its connections open");
}

#[tokio::test]
async fn a_request_is_not_repeated_after_response_bytes_arrived() {
    let server = Scripted::start(|arrival| match arrival.number {
        0 => Act::Say(ok("{}")),
        _ => Act::SayAndClose("HTTP/1.1 2".to_owned()),
    })
    .await;
    let vecho = Inside::start(&server.base_url(), &[]).await;
    assert_eq!(send(&vecho, Method::GET, "/v1/models", "").await, 200);
    assert_eq!(send(&vecho, Method::GET, "/v1/models", "").await, 502);
    assert_eq!(server.arrivals().len(), 2);
}

#[tokio::test]
async fn a_request_on_a_new_connection_is_not_repeated() {
    let server = Scripted::start(|_| Act::Close).await;
    let vecho = Inside::start(&server.base_url(), &[]).await;
    let answer = vecho.client.get(&format!("http://{}/v1/models", vecho.public())).await;
    assert_eq!((answer.status, answer.error().0.as_str()), (502, "server_error"));
    assert_eq!(server.arrivals().len(), 1);
}

/// With separate connections, a late second answer to one kind of request can never be read as an answer to the other.
#[tokio::test]
async fn embeddings_calls_and_pass_through_requests_share_no_connection() {
    let server = Scripted::start(|arrival| {
        Act::Say(if arrival.head.contains("/embeddings") { one_vector(0.25) } else { ok("{}") })
    })
    .await;
    let vecho = Inside::start(&server.base_url(), &[]).await;
    for number in 0..5 {
        assert_eq!(send(&vecho, Method::GET, "/v1/models", "").await, 200);
        assert_eq!(vecho.embed(json!({"model": "tiny", "input": format!("{number}")})).await.status, 200);
        let passed = vecho.embed(json!({"model": "tiny", "input": "a", "unknown_field": number})).await;
        assert_eq!((passed.status, passed.cache()), (200, "bypass"));
    }
    let connections = |is_call: bool| -> BTreeSet<usize> {
        let is_of_kind = |arrival: &Arrival| {
            (arrival.head.contains("/embeddings") && !arrival.body.contains("unknown_field")) == is_call
        };
        server.arrivals().into_iter().filter(is_of_kind).map(|arrival| arrival.connection).collect()
    };
    let (calls, passing) = (connections(true), connections(false));
    assert!(calls.is_disjoint(&passing), "{calls:?} {passing:?}");
    assert_eq!((calls.len(), passing.len()), (1, 1), "each kind keeps its connection");
}

#[tokio::test]
async fn a_content_length_of_zero_is_forwarded() {
    let server = Scripted::start(|_| Act::Say(ok("{}"))).await;
    let vecho = Inside::start(&server.base_url(), &[]).await;
    for method in [Method::POST, Method::PUT] {
        let request = raw(method, &format!("http://{}/v1/files/1/cancel", vecho.public()), "");
        let mut request = request;
        request.headers_mut().insert("content-length", http::HeaderValue::from_static("0"));
        assert_eq!(Client::new().send(request).await.expect("an answer").status, 200);
        assert_eq!(server.arrivals().last().expect("a request").header("content-length"), Some("0"));
    }
    send(&vecho, Method::GET, "/v1/models", "").await;
    assert_eq!(server.arrivals().last().expect("a request").header("content-length"), None);
}
