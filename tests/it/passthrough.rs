//! Every request that is not an embeddings request passes through unchanged and is streamed in both directions.

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};

use crate::harness::client::{Client, post};
use crate::harness::scripted::{Act, Scripted, one_vector};
use crate::harness::socket::{Socket, exchange};
use crate::harness::{Behaviour, Inside, Stub};

async fn start(stub: &Stub) -> Inside {
    Inside::start(&stub.base_url(), &[]).await
}

fn url(vecho: &Inside, path: &str) -> String {
    format!("http://{}{path}", vecho.public())
}

fn headers_of(echo: &Value) -> Vec<(&str, &str)> {
    let list = echo["headers"].as_array().expect("the echo lists headers");
    list.iter().filter_map(|pair| Some((pair.get(0)?.as_str()?, pair.get(1)?.as_str()?))).collect()
}

#[tokio::test]
async fn method_path_query_headers_and_body_are_forwarded_unchanged() {
    let stub = Stub::start();
    let vecho = start(&stub).await;
    let body: Vec<u8> = (0..=255).cycle().take(10_000).collect();
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        let request = Request::builder()
            .method(method.clone())
            .uri(url(&vecho, "/v1/echo?a=%20b&c=%2F&&d"))
            .header("authorization", "Bearer sk-client")
            .header("content-type", "application/x-odd")
            .header("idempotency-key", "once")
            .header("x-two", "one")
            .header("x-two", "two")
            .header("x-vecho-namespace", "ours")
            .body(Full::new(Bytes::from(body.clone())))
            .expect("a legal request");
        let answer = vecho.client.send(request).await.expect("an answer");
        let echo = answer.json();
        assert_eq!(
            (echo["method"].as_str(), echo["path"].as_str()),
            (Some(method.as_str()), Some("/v1/echo?a=%20b&c=%2F&&d"))
        );
        assert_eq!(echo["body_blake3"], blake3::hash(&body).to_hex().as_str());
        let headers = headers_of(&echo);
        for pair in [
            ("authorization", "Bearer sk-client"),
            ("content-type", "application/x-odd"),
            ("idempotency-key", "once"),
            ("x-two", "one"),
            ("x-two", "two"),
            ("content-length", "10000"),
        ] {
            assert!(headers.contains(&pair), "{pair:?} is missing in {headers:?}");
        }
        assert!(!headers.iter().any(|(name, _)| name.starts_with("x-vecho-")), "{headers:?}");
        let host = stub.addr().to_string();
        assert!(headers.contains(&("host", &host)), "the upstream's own name: {headers:?}");
    }
}

#[tokio::test]
async fn status_headers_and_body_of_an_answer_are_returned_unchanged() {
    let stub = Stub::start();
    let vecho = start(&stub).await;
    let teapot =
        |code| Behaviour::Status { code, headers: vec![("x-odd", "1".to_owned())], body: "odd \u{2028}".to_owned() };
    for code in [200, 201, 302, 404, 418, 429, 500, 503] {
        stub.next(teapot(code));
        let answer = vecho.client.get(&url(&vecho, "/v1/anything")).await;
        assert_eq!((answer.status, &answer.body[..]), (code, "odd \u{2028}".as_bytes()));
        assert_eq!((answer.header("x-odd"), answer.header("set-cookie").is_some()), (Some("1"), true));
    }
    assert_eq!(stub.calls().len(), 8, "what passes through is never repeated");
}

#[tokio::test]
async fn hop_by_hop_headers_are_not_forwarded() {
    let stub = Stub::start();
    let vecho = start(&stub).await;
    let answer = exchange(
        vecho.public(),
        "GET /v1/echo HTTP/1.1\r\nhost: x\r\nconnection: close, X-Hop\r\nx-hop: secret\r\nte: trailers\r\n\
         proxy-authorization: Basic eDp5\r\nkeep-alive: timeout=5\r\nx-end-to-end: kept\r\n\r\n",
    )
    .await;
    let seen = &stub.calls()[0].headers;
    for name in ["connection", "x-hop", "te", "proxy-authorization", "keep-alive"] {
        assert!(!seen.contains_key(name), "{name} went up: {seen:?}");
    }
    assert_eq!(seen["x-end-to-end"], "kept");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    stub.next(Behaviour::Status {
        code: 200,
        headers: vec![
            ("connection", "x-down".to_owned()),
            ("x-down", "1".to_owned()),
            ("keep-alive", "timeout=9".to_owned()),
        ],
        body: "{}".to_owned(),
    });
    let down = vecho.client.get(&url(&vecho, "/v1/anything")).await;
    assert_eq!((down.header("x-down"), down.header("keep-alive")), (None, None));
}

#[tokio::test]
async fn server_sent_events_arrive_one_by_one() {
    let stub = Stub::start();
    let vecho = start(&stub).await;
    stub.hold_events();
    let body = json!({"model": "gpt", "stream": true, "messages": []});
    let response =
        vecho.client.open(post(&url(&vecho, "/v1/chat/completions"), &body)).await.expect("headers come first");
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    for part in ["Hello", " world", "!", "[DONE]"] {
        let frame = body.frame().await.expect("one more event").expect("unbroken").into_data().expect("data");
        assert!(frame.starts_with(b"data: ") && String::from_utf8_lossy(&frame).contains(part), "{frame:?}");
        stub.release_event();
    }
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn an_upload_reaches_the_upstream_before_its_end_is_sent() {
    let stub = Stub::start();
    let vecho = start(&stub).await;
    let mut socket = Socket::connect(vecho.public()).await;
    let (part, parts) = (vec![b'u'; 1 << 20], 24);
    let length = part.len() * parts;
    socket
        .send(format!("POST /v1/files HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"))
        .await;
    for sent in 1..=parts {
        socket.send(&part).await;
        stub.uploaded(sent * part.len() - (1 << 19)).await;
    }
    let answer = socket.read_to_end().await;
    assert!(answer.contains(&format!("\"bytes\":{length}")), "{answer}");
}

#[tokio::test]
async fn a_chunked_upload_is_streamed_without_a_length() {
    let stub = Stub::start();
    let vecho = start(&stub).await;
    let mut socket = Socket::connect(vecho.public()).await;
    socket.send("POST /v1/files HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n").await;
    socket.send("5\r\nhello\r\n").await;
    stub.uploaded(5).await;
    socket.send("6\r\n world\r\n0\r\n\r\n").await;
    assert!(socket.read_to_end().await.contains("\"bytes\":11"));
    assert!(!stub.calls()[0].headers.contains_key("content-length"));
}

#[tokio::test]
async fn a_download_is_streamed_while_the_upstream_still_sends() {
    let stub = Stub::start();
    let vecho = start(&stub).await;
    stub.hold_events();
    let request = Request::get(url(&vecho, "/v1/slow-download")).body(Full::default()).expect("legal");
    let mut body = vecho.client.open(request).await.expect("headers").into_body();
    let mut received = 0;
    for piece in 1..=4 {
        while received < piece * 65_536 {
            let frame = body.frame().await.expect("more").expect("unbroken");
            received += frame.into_data().map_or(0, |data| data.len());
        }
        assert_eq!(received, piece * 65_536, "no more than was released");
        stub.release_event();
    }
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn a_websocket_is_tunnelled_in_both_directions_until_it_ends() {
    let stub = Stub::start();
    let vecho = start(&stub).await;
    let mut socket = Socket::connect(vecho.public()).await;
    socket
        .send(
            "GET /v1/realtime?model=m HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n",
        )
        .await;
    let head = socket.read_until("\r\n\r\n").await.to_lowercase();
    assert!(head.starts_with("http/1.1 101") && head.contains("upgrade: websocket"), "{head}");
    for word in ["ping!", "and once more!"] {
        socket.send(word).await;
        assert_eq!(socket.read_until("!").await, word);
    }
    assert_eq!(stub.calls()[0].header("sec-websocket-version"), Some("13"));
    socket.finish().await;
    assert_eq!(socket.read_to_end().await, "", "the end of one side is the end of the other");
}

#[tokio::test]
async fn an_upgrade_to_h2c_is_not_forwarded() {
    let stub = Stub::start();
    let vecho = start(&stub).await;
    let answer = exchange(
        vecho.public(),
        "GET /v1/echo HTTP/1.1\r\nhost: x\r\nconnection: close, Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\n\
         http2-settings: AAMAAABk\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let seen = &stub.calls()[0].headers;
    assert!(!seen.contains_key("upgrade") && !seen.contains_key("http2-settings"), "{seen:?}");
}

#[tokio::test]
async fn an_expected_100_continue_is_sent() {
    let stub = Stub::start();
    let vecho = start(&stub).await;
    for path in ["/v1/echo", "/v1/embeddings"] {
        let mut socket = Socket::connect(vecho.public()).await;
        let body = json!({"model": "tiny", "input": "x"}).to_string();
        let length = body.len();
        socket
            .send(format!(
                "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nexpect: 100-continue\r\n\
                 content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
            ))
            .await;
        assert!(socket.read_until("\r\n\r\n").await.starts_with("HTTP/1.1 100"));
        socket.send(body).await;
        let answer = socket.read_to_end().await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert!(stub.calls().iter().all(|call| call.header("expect").is_none()));
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    let stub = Stub::start();
    let vecho = start(&stub).await;
    let head = exchange(vecho.public(), "HEAD /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
    assert!(head.to_lowercase().contains("content-length: "), "the length of what GET would bring: {head}");
    assert_eq!(stub.calls()[0].method, Method::HEAD);
    stub.next(Behaviour::Status { code: 204, headers: vec![], body: String::new() });
    let empty = exchange(vecho.public(), "DELETE /v1/files/1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(empty.starts_with("HTTP/1.1 204") && empty.ends_with("\r\n\r\n"), "{empty}");
}

#[tokio::test]
async fn an_upstream_that_is_down_is_a_502_envelope() {
    let stub = Stub::start();
    let vecho = start(&stub).await;
    stub.down().await;
    let answer = vecho.client.get(&url(&vecho, "/v1/models")).await;
    assert_eq!((answer.status, answer.error()), (502, ("server_error".to_owned(), json!("upstream_unavailable"))));
}

#[tokio::test]
async fn connect_is_refused() {
    let stub = Stub::start();
    let vecho = start(&stub).await;
    let answer =
        exchange(vecho.public(), "CONNECT example.com:443 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("CONNECT is not supported"), "{answer}");
    assert!(stub.calls().is_empty());
}

#[tokio::test]
async fn all_base_urls_and_azure_paths_map_to_the_same_upstream_path() {
    let azure = "/openai/deployments/tiny/embeddings?api-version=2024-10-21";
    for with_v1 in [true, false] {
        let stub = Stub::start();
        let upstream = if with_v1 { stub.base_url() } else { stub.root_url() };
        let vecho = Inside::start(&upstream, &[]).await;
        let without = if with_v1 { "/v1" } else { "" };
        let cases = [
            ("/v1/embeddings", "/v1/embeddings".to_owned()),
            ("/embeddings", format!("{without}/embeddings")),
            (azure, azure.to_owned()),
            ("/v1/models?limit=1", "/v1/models?limit=1".to_owned()),
            ("/models", format!("{without}/models")),
            ("/openai/deployments/d/chat/completions?x=1", "/openai/deployments/d/chat/completions?x=1".to_owned()),
        ];
        for (number, (ours, theirs)) in cases.into_iter().enumerate() {
            let body = json!({"model": "tiny", "input": format!("{number} {with_v1}")});
            Client::new().post(&url(&vecho, ours), &body).await;
            assert_eq!(stub.calls().last().map(|call| call.path.clone()), Some(theirs), "{ours} of {upstream}");
        }
    }
}

#[tokio::test]
async fn trace_is_refused_and_does_not_expose_the_key_of_vecho() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[("upstream.api_key", "sk-vecho")]).await;
    for path in ["/v1/models", "/v1/embeddings"] {
        let head = format!("TRACE {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let answer = exchange(vecho.public(), head).await;
        assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: GET"), "{answer}");
    }
    assert!(stub.calls().is_empty());
}

#[tokio::test]
async fn only_a_post_to_the_embeddings_path_is_an_embeddings_request() {
    let server = Scripted::start(|_| Act::Say(one_vector(0.25))).await;
    let vecho = Inside::start(&server.base_url(), &[]).await;
    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        for _ in 0..2 {
            let mut request = post(&url(&vecho, "/v1/embeddings"), &json!({"model": "tiny", "input": "a"}));
            *request.method_mut() = method.clone();
            assert_eq!(vecho.client.send(request).await.expect("an answer").status, 200);
            let last = server.arrivals().pop().expect("it went up");
            assert!(last.head.starts_with(method.as_str()), "{}", last.head);
        }
    }
    assert_eq!(server.arrivals().len(), 6, "none is answered from the cache");
}
