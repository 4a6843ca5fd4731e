//! Requests that end early or are far too large: what the caller is told, and what others notice.

use std::time::Duration;

use serde_json::json;

use crate::harness::socket::Socket;
use crate::harness::{Behaviour, Front, Inside, Stub};

/// Returns the head of a request that keeps its connection alive.
fn head(path: &str, more: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{more}\r\n\r\n")
}

#[tokio::test]
async fn a_refusal_that_ends_its_connection_says_so() {
    let stub = Stub::start();
    let limits =
        [("limits.max_body_bytes", "1024"), ("limits.body_timeout", "200ms"), ("limits.max_header_bytes", "8192")];
    let vecho = Inside::start(&stub.base_url(), &limits).await;
    let long = "x".repeat(2_000);
    let chunk = format!("{:x}\r\n{long}\r\n", long.len());
    let many = format!("x-long: {}", "y".repeat(20_000));
    for (path, more, body, status) in [
        ("/v1/embeddings", "content-length: 5000000", "", "413"),
        ("/v1/embeddings", "transfer-encoding: chunked", &*chunk, "413"),
        ("/v1/embeddings", "content-length: 100", "{", "408"),
        ("/v1/vecho/similar", "content-length: 5000000", "", "413"),
        // A request to another path passes through, and its body stalls as well.
        ("/v1/files", "content-length: 100", "{", "408"),
        ("/v1/embeddings", &*many, "", "431"),
    ] {
        let mut socket = Socket::connect(vecho.public()).await;
        socket.send(format!("{}{body}", head(path, more))).await;
        let answer = socket.read_to_end().await;
        let case = format!("{path} {}: {answer}", &more[..more.len().min(40)]);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{case}");
        assert!(answer.to_lowercase().contains("\r\nconnection: close\r\n"), "{case}");
    }
    let mut socket = Socket::connect(vecho.admin()).await;
    let head = head("/api/performance/cache/explain", "content-length: 900000000");
    socket.send(head.replace("host: x", "host: 127.0.0.1")).await;
    let answer = socket.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("\r\nconnection: close\r\n"), "{answer}");
}

#[tokio::test]
async fn a_body_over_the_limit_at_teis_path_passes_through() {
    let front = Front::with(&[("limits.max_body_bytes", "1024")]).await;
    let answer = Behaviour::Status { code: 200, headers: Vec::new(), body: "[0.5]".to_owned() };
    front.stub.when(|call| call.route() == "/v1/similarity", answer);
    let body = json!({"inputs": {"source_sentence": "q", "sentences": ["a".repeat(2_000)]}}).to_string();
    let answer = front.post_to("/similarity", body.clone()).send().await;
    assert_eq!((answer.status, &answer.body[..], answer.cache()), (200, &b"[0.5]"[..], "bypass"));
    assert!(answer.header("x-vecho-bypass-reason").is_some_and(|reason| reason.contains("too_large")), "{answer:?}");
    assert_eq!(front.stub.calls().last().map(|call| call.body.to_vec()), Some(body.clone().into_bytes()));
    assert_eq!(front.post_to("/v1/vecho/similar", body).send().await.status, 413, "no upstream knows this path");
}

#[tokio::test]
async fn a_body_of_millions_of_null_members_delays_no_other_request_for_long() {
    let front = Front::with(&[("workers", "1")]).await;
    front.embed(&["known"]).await;
    let members: Vec<String> = (0..3_000_000).map(|n| format!("\"m{n}\":null")).collect();
    let body = format!(r#"{{"model":"tiny","input":"a","unknown":1,{}}}"#, members.join(","));
    let large = tokio::spawn(async move {
        let explained = front.explain(&body).await;
        (explained, front)
    });
    let (explained, front) =
        tokio::time::timeout(Duration::from_secs(20), large).await.expect("in time").expect("it ends");
    assert_eq!((&explained["reason"], &explained["unknown_fields"]), (&json!("unknown_field"), &json!(["unknown"])));
    assert_eq!(front.embed(&["known"]).await.cache(), "hit");
}
