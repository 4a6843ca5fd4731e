//! The limits of the public port: excess requests are refused with an error in the API's format, and every permit is
//! released again.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::client::Answer;
use crate::harness::front::tiny;
use crate::harness::ops::metric_becomes;
use crate::harness::socket::Socket;
use crate::harness::{Behaviour, Front, Inside, Stub};

fn ask(text: &str) -> Value {
    json!({"model": "tiny", "input": text})
}

async fn assert_idle(vecho: &Inside) {
    for gauge in ["vecho_requests_in_flight", "vecho_body_bytes_in_flight", "vecho_upstream_in_flight", "vecho_flights"]
    {
        metric_becomes(vecho.admin(), gauge, 0.0).await;
    }
}

/// Returns the head of an embeddings request, without its body.
fn head(more: &str) -> String {
    format!(
        "POST /v1/embeddings HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n{more}\r\n\r\n"
    )
}

fn assert_overloaded(answer: &Answer) {
    assert_eq!((answer.status, answer.error()), (503, ("server_error".to_owned(), json!("overloaded"))));
    assert_eq!(answer.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn a_body_over_the_limit_is_a_413_with_and_without_a_length() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[("limits.max_body_bytes", "1024")]).await;
    let long = ask(&"x".repeat(2_000)).to_string();
    let (length, mut answers) = (long.len(), Vec::new());
    let mut declared = Socket::connect(vecho.public()).await;
    // The declared length is enough to refuse the body before its first byte.
    declared.send(head(&format!("content-length: {length}"))).await;
    answers.push(declared.read_to_end().await);
    let mut chunked = Socket::connect(vecho.public()).await;
    chunked.send(head("transfer-encoding: chunked")).await;
    chunked.send(format!("{length:x}\r\n{long}\r\n0\r\n\r\n")).await;
    answers.push(chunked.read_to_end().await);
    for answer in answers {
        assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("body_too_large"), "{answer}");
        assert!(answer.contains(r#""type":"invalid_request_error""#) && answer.contains(r#""param":"#), "{answer}");
    }
    assert!((vecho.metric(r#"vecho_rejected_total{reason="body_too_large"}"#).await - 2.0).abs() < f64::EPSILON);
    assert_eq!(vecho.embed(ask(&"x".repeat(900))).await.status, 200);
    assert_eq!(stub.calls().len(), 1, "nothing of a refused body goes up");
    assert_idle(&vecho).await;
}

#[tokio::test]
async fn a_request_over_the_limit_is_a_503_with_retry_after() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[("limits.max_requests", "2")]).await;
    stub.always(Behaviour::Gate);
    // Another model, so the two requests do not share a call.
    let other = json!({"model": "other", "input": "b"});
    let crowd = async {
        stub.held(2).await;
        assert_overloaded(&vecho.embed(ask("c")).await);
        let models = vecho.client.get(&format!("http://{}/v1/models", vecho.public())).await;
        assert_overloaded(&models);
        stub.release(2);
    };
    let (a, b, ()) = tokio::join!(vecho.embed(ask("a")), vecho.embed(other), crowd);
    assert_eq!((a.status, b.status), (200, 200));
    assert_idle(&vecho).await;
    stub.always(Behaviour::Normal);
    assert_eq!(vecho.embed(ask("c")).await.status, 200);
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_in_flight_is_accepted() {
    let bytes = 1 << 20;
    let text = bytes.to_string();
    let front =
        Front::with(&[("limits.max_inflight_bytes", text.as_str()), ("limits.max_body_bytes", text.as_str())]).await;
    let mut body = ask("a").to_string();
    body.push_str(&" ".repeat(bytes - body.len()));
    assert_eq!(front.post(body.clone()).send().await.vectors(), tiny(&["a"]));
    body.push(' ');
    assert_eq!(front.post(body).send().await.status, 413, "one byte more is over the bound of a body");
}

#[tokio::test]
async fn bodies_over_the_bytes_in_flight_are_a_503() {
    let stub = Stub::start();
    let limits = [("limits.max_inflight_bytes", "3000000"), ("limits.max_body_bytes", "3000000")];
    let vecho = Inside::start(&stub.base_url(), &limits).await;
    stub.always(Behaviour::Gate);
    let long = |letter: &str| json!({"model": "tiny", "input": [letter.repeat(8_000), "x".repeat(1_800_000)]});
    let crowd = async {
        stub.arrived(1).await;
        assert_overloaded(&vecho.embed(long("b")).await);
        stub.release(10);
        assert_eq!(vecho.embed(ask("small")).await.status, 200, "what is small still fits");
    };
    let (first, ()) = tokio::join!(vecho.embed(long("a")), crowd);
    assert_ne!(first.status, 503);
    assert_idle(&vecho).await;
}

#[tokio::test]
async fn bodies_that_are_only_declared_reserve_no_memory() {
    let stub = Stub::start();
    let limits = [("limits.max_inflight_bytes", "2000000"), ("limits.max_body_bytes", "2000000")];
    let vecho = Inside::start(&stub.base_url(), &limits).await;
    let mut slow = Vec::new();
    for sent in 1..=3 {
        let mut socket = Socket::connect(vecho.public()).await;
        socket.send(head("content-length: 1900000")).await;
        socket.send("{").await;
        metric_becomes(vecho.admin(), "vecho_body_bytes_in_flight", f64::from(sent)).await;
        slow.push(socket);
    }
    let fits = vecho.embed(ask(&"x".repeat(1_000_000))).await.status;
    assert_ne!(fits, 503, "it gets as far as the upstream");
    assert_eq!(stub.calls().len(), 1);
    drop(slow);
    assert_idle(&vecho).await;
}

#[tokio::test]
async fn a_body_without_a_length_is_refused_when_memory_runs_out() {
    let stub = Stub::start();
    let limits = [("limits.max_inflight_bytes", "2000000"), ("limits.max_body_bytes", "2000000")];
    let vecho = Inside::start(&stub.base_url(), &limits).await;
    let mut first = Socket::connect(vecho.public()).await;
    let piece = "x".repeat(1_200_000);
    first.send(head("transfer-encoding: chunked")).await;
    first.send(format!("{:x}\r\n{piece}\r\n", piece.len())).await;
    metric_becomes(vecho.admin(), "vecho_body_bytes_in_flight", 1_200_000.0).await;
    let mut second = Socket::connect(vecho.public()).await;
    second.send(head("transfer-encoding: chunked")).await;
    // The body is incomplete: vecho refuses it as soon as the memory limit is reached.
    second.send(format!("{:x}\r\n{piece}\r\n", piece.len())).await;
    let refused = second.read_to_end().await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("limits.max_inflight_bytes"), "{refused}");
    assert!(refused.contains("retry-after: 1") && refused.contains(r#""code":"overloaded""#), "{refused}");
    drop(first);
    assert_idle(&vecho).await;
    assert_eq!(vecho.embed(ask("small")).await.status, 200);
}

#[tokio::test]
async fn a_slow_body_must_end_within_the_request_timeout() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[("limits.request_timeout", "300ms")]).await;
    let mut socket = Socket::connect(vecho.public()).await;
    socket.send(head("content-length: 1000000")).await;
    let answer = tokio::time::timeout(Duration::from_secs(20), socket.trickle(Duration::from_millis(10))).await;
    let answer = answer.expect("it is given up");
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("limits.request_timeout"), "{answer}");
    assert!((vecho.metric(r#"vecho_rejected_total{reason="body_timeout"}"#).await - 1.0).abs() < f64::EPSILON);
    assert_idle(&vecho).await;
}

#[tokio::test]
async fn a_body_that_stalls_is_a_408() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[("limits.body_timeout", "100ms")]).await;
    let mut socket = Socket::connect(vecho.public()).await;
    socket.send(head("content-length: 100")).await;
    socket.send(r#"{"model":"#).await;
    let answer = socket.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("body_timeout"), "{answer}");
    assert!(stub.calls().is_empty());
    assert_idle(&vecho).await;
}

#[tokio::test]
async fn a_stalled_body_of_a_bypass_is_a_408() {
    let stub = Stub::start();
    for upstream in [stub.base_url(), "mock:".to_owned()] {
        let vecho = Inside::start(&upstream, &[("limits.body_timeout", "100ms")]).await;
        let mut socket = Socket::connect(vecho.public()).await;
        // Not declared as JSON, so it passes through.
        let head = "POST /v1/embeddings HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 100\r\n\r\nbegun";
        socket.send(head).await;
        let answer = socket.read_to_end().await;
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains(r#""code":"body_timeout""#), "{answer}");
        assert!(answer.contains("limits.body_timeout"), "{answer}");
        assert!((vecho.metric(r#"vecho_rejected_total{reason="body_timeout"}"#).await - 1.0).abs() < f64::EPSILON);
        assert_idle(&vecho).await;
    }
}

#[tokio::test]
async fn a_disconnected_client_frees_its_slot_and_its_fetch_completes() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[("limits.max_requests", "1")]).await;
    stub.next(Behaviour::Gate);
    let body = ask("x").to_string();
    let mut socket = Socket::connect(vecho.public()).await;
    socket.send(head(&format!("content-length: {}", body.len()))).await;
    socket.send(body).await;
    stub.held(1).await;
    drop(socket);
    metric_becomes(vecho.admin(), "vecho_requests_in_flight", 0.0).await;
    assert!(vecho.metric("vecho_body_bytes_in_flight").await > 0.0, "the fetch holds its body");
    assert!(vecho.metric("vecho_vector_bytes_in_flight").await > 0.0, "and the room for its vector");
    stub.release(1);
    assert_idle(&vecho).await;
    metric_becomes(vecho.admin(), "vecho_vector_bytes_in_flight", 0.0).await;
    let answer = vecho.embed(ask("x")).await;
    assert_eq!((answer.status, answer.header("x-vecho-cache")), (200, Some("hit")));
    assert_eq!(stub.calls().len(), 1);
}

#[tokio::test]
async fn a_client_that_disconnects_during_its_body_frees_its_slot() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[]).await;
    let mut socket = Socket::connect(vecho.public()).await;
    socket.send(head("content-length: 100")).await;
    socket.send("{").await;
    metric_becomes(vecho.admin(), "vecho_body_bytes_in_flight", 1.0).await;
    drop(socket);
    assert_idle(&vecho).await;
    assert!(stub.calls().is_empty());
}

#[tokio::test]
async fn a_stream_holds_its_slot_until_it_ends() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[]).await;
    stub.hold_events();
    let url = format!("http://{}/v1/slow-download", vecho.public());
    let request = http::Request::get(url).body(http_body_util::Full::default()).expect("legal");
    let response = vecho.client.open(request).await.expect("headers");
    assert!((vecho.metric("vecho_requests_in_flight").await - 1.0).abs() < f64::EPSILON);
    drop(response);
    tokio::time::timeout(Duration::from_secs(20), assert_idle(&vecho)).await.expect("its place becomes free");
}

/// Returns a path that is legal on the public port, and too long after the path of the base URL is prepended.
fn long_path(path: &str) -> String {
    format!("{path}?x={}", "x".repeat(65_400 - path.len()))
}

#[tokio::test]
async fn a_path_too_long_for_the_upstream_is_a_414_on_every_route() {
    let stub = Stub::start();
    let base = stub.base_url().replace("/v1", &format!("/{}/v1", "b".repeat(200)));
    let vecho = Inside::start(&base, &[("limits.max_header_bytes", "131072")]).await;
    let url = |path: &str| format!("http://{}{}", vecho.public(), long_path(path));
    let mut answers = vec![vecho.client.post(&url("/v1/embeddings"), &ask("a")).await];
    answers.push(vecho.client.post(&url("/v1/embeddings"), &json!({"model": "tiny", "input": "a", "more": 1})).await);
    answers.push(vecho.client.get(&url("/v1/models")).await);
    for answer in answers {
        let error = ("invalid_request_error".to_owned(), json!("uri_too_long"));
        assert_eq!((answer.status, answer.error()), (414, error));
    }
    assert!((vecho.metric(r#"vecho_rejected_total{reason="header"}"#).await - 3.0).abs() < f64::EPSILON);
    assert!(stub.calls().is_empty());
    assert_idle(&vecho).await;
    let explain =
        format!("http://{}/api/performance/cache/explain?path={}", vecho.admin(), long_path("/v1/embeddings"));
    let explained = vecho.client.post(&explain, &ask("a")).await.json();
    assert_eq!((&explained["cacheable"], &explained["reason"]), (&json!(false), &json!("uri_too_long")));
}

#[tokio::test]
async fn the_built_in_mock_does_not_buffer_unused_bodies() {
    let vecho = Inside::start("mock:", &[("limits.max_body_bytes", "1024")]).await;
    let post = |path: &str, more: &str| {
        format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: text/plain\r\n{more}\r\n\r\n")
    };
    let mut upload = Socket::connect(vecho.public()).await;
    // The body of this request never arrives.
    upload.send(post("/v1/files", "content-length: 1000000000")).await;
    let answer = upload.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    let mut unread = Socket::connect(vecho.public()).await;
    unread.send(post("/v1/embeddings", "transfer-encoding: chunked")).await;
    // The body is incomplete.
    unread.send(format!("800\r\n{}\r\n", "x".repeat(0x800))).await;
    let answer = unread.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains(r#""code":"body_too_large""#), "{answer}");
    assert_idle(&vecho).await;
}

/// Returns an answer that is too large at a limit of 32 MiB. All answers in flight share a fifth of the limit.
fn oversized() -> Behaviour {
    let body = format!("{{\"object\": \"list\",{}\"data\": []}}", " ".repeat(9 << 20));
    Behaviour::Status { code: 200, headers: vec![("content-type", "application/json".to_owned())], body }
}

#[tokio::test]
async fn an_answer_too_large_for_memory_is_fetched_in_smaller_calls() {
    // The test process already exceeds the limit. The long check interval prevents the governor from evicting.
    let front = Front::with(&[("memory.limit_mb", "32"), ("memory.check_every", "1h")]).await;
    front.stub.when(|call| call.inputs().len() > 1, oversized());
    let answer = front.embed(&["a", "b", "c"]).await;
    assert_eq!((answer.vectors(), answer.sources()), (tiny(&["a", "b", "c"]), "upstream=3"));
    let sizes: Vec<usize> = front.stub.embedding_calls().iter().map(|call| call.inputs().len()).collect();
    assert_eq!(sizes.iter().filter(|size| **size == 1).count(), 3, "{sizes:?}");
    assert_eq!(front.embed(&["c", "b", "a"]).await.cache(), "hit");
}

#[tokio::test]
async fn an_oversized_answer_to_one_input_is_streamed_to_the_client() {
    let front = Front::with(&[("memory.limit_mb", "32")]).await;
    for _ in 0..5 {
        front.stub.next(oversized());
        front.stub.next(oversized());
        let passed = front.embed(&["a"]).await;
        assert_eq!((passed.cache(), passed.header("x-vecho-bypass-reason")), ("bypass", Some("unreadable_answer")));
        assert!(passed.body.len() > 9 << 20, "{}", passed.body.len());
    }
    let again = front.embed(&["a"]).await;
    assert_eq!((again.vectors(), again.cache()), (tiny(&["a"]), "miss"));
}

#[tokio::test]
async fn an_idle_client_connection_is_closed_after_the_configured_time() {
    let stub = Stub::start();
    let limits = [("limits.idle_timeout", "300ms"), ("limits.header_timeout", "60s")];
    let vecho = Inside::start(&stub.base_url(), &limits).await;
    let mut socket = Socket::connect(vecho.public()).await;
    socket.send("GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let answer = socket.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// Returns texts whose answers probably take more than four of the six MiB that all answers share at 32 MiB.
fn many() -> Vec<String> {
    (0..100).map(|number| format!("text {number}")).collect()
}

#[tokio::test]
async fn a_retry_reserves_only_the_memory_that_its_answer_needs() {
    let front = Front::with(&[("memory.limit_mb", "32")]).await;
    let body = " ".repeat(3 << 20);
    front.stub.next(Behaviour::Status { code: 503, headers: Vec::new(), body });
    front.stub.next(Behaviour::Gate);
    let repeated = front.post(json!({"model": "tiny", "input": "a"}).to_string()).send_meanwhile();
    front.stub.held(1).await;
    assert_eq!(front.calls(), 2, "the call that failed with a large answer, and its repetition, which is held");
    let beside = front.ask(&json!({"model": "tiny", "input": many()})).await;
    assert_eq!((beside.status, front.stub.held_now()), (200, 1));
    front.stub.release(1);
    let repeated = repeated.await.expect("it must end");
    assert_eq!((repeated.vectors(), repeated.cache()), (tiny(&["a"]), "miss"));
}

#[tokio::test]
async fn a_call_that_waits_for_its_retry_holds_no_memory() {
    let front = Front::with(&[("memory.limit_mb", "32"), ("retry.max_wait", "5s")]).await;
    front.stub.next(Behaviour::RateLimit { retry_after_ms: 3_000 });
    let waiting = front.post(json!({"model": "tiny", "input": many()}).to_string()).send_meanwhile();
    front.stub.arrived(1).await;
    let beside = front.ask(&json!({"model": "other", "input": many()})).await;
    assert_eq!((beside.status, front.calls()), (200, 2), "it was answered before the other call was made again");
    assert_eq!(waiting.await.expect("it must end").cache(), "miss");
    assert_eq!(front.calls(), 3);
}
