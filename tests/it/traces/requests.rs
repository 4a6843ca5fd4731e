//! The spans of one request: names, parents and attributes.

use http::{Method, Request};
use http_body_util::Full;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::ground::{Ground, SPAN, TRACE, traceparent};
use crate::harness::collector::{Span, all, answer, names, only};
use crate::harness::front::{TINY, texts_of};
use crate::harness::redis::Redis;
use crate::harness::tls::Folder;
use crate::harness::{Behaviour, Client};

const REQUEST: &str = "POST /v1/embeddings";
const CALL: &str = "embeddings tiny";

fn says(span: &Span, pairs: &[(&str, &str)]) {
    for (name, value) in pairs {
        assert_eq!(span.said(name).as_deref(), Some(*value), "{name} of {:#?}", span.proto);
    }
}

#[tokio::test]
async fn a_miss_is_one_trace_from_the_caller_to_the_upstream() {
    let folder = Folder::new("traces-disk");
    let path = folder.path("cache");
    let ground = Ground::with(&[("disk.path", path.to_str().expect("the path is text"))]).await;
    let ask = ground.in_trace(&["a", "b", "a"]).header("tracestate", "vendor=1,other=2");
    assert_eq!(ask.send().await.status, 200);
    let spans = ground.collector.has(5).await;
    let [request, disk, wait, queue, call] =
        [REQUEST, "look up disk", "wait", "queue", CALL].map(|name| only(&spans, name));
    assert!(spans.iter().all(|span| span.trace_id() == TRACE), "{:?}", names(&spans));
    assert_eq!(request.parent(), SPAN);
    assert_eq!((disk.parent(), wait.parent()), (request.id(), request.id()));
    assert_eq!((queue.parent(), call.parent()), (wait.id(), wait.id()));
    assert!(request.spans_over(disk) && request.spans_over(wait) && wait.spans_over(queue) && wait.spans_over(call));
    assert_eq!(ground.parents_sent(), [format!("00-{TRACE}-{}-01", call.id())]);
    let upstream = &ground.front.stub.embedding_calls()[0];
    assert_eq!(upstream.header("tracestate"), Some("vendor=1,other=2"));
    assert_eq!([request, wait, call].map(|span| span.proto.kind), [2, 1, 3], "server, internal, client");
    says(
        request,
        &[
            ("http.request.method", "POST"),
            ("http.route", "/v1/embeddings"),
            ("url.path", "/v1/embeddings"),
            ("url.scheme", "http"),
            ("http.response.status_code", "200"),
            ("gen_ai.operation.name", "embeddings"),
            ("gen_ai.request.model", TINY),
            ("gen_ai.response.model", TINY),
            ("vecho.inputs", "3"),
            ("vecho.outcome", "miss"),
            ("vecho.sources", "upstream=3"),
            ("vecho.tokens.saved", "1"),
        ],
    );
    says(disk, &[("vecho.tier", "disk"), ("vecho.found", "0")]);
    says(wait, &[("vecho.led", "2"), ("vecho.joined", "0")]);
    says(queue, &[("vecho.inputs", "2")]);
    let port = ground.front.stub.addr().port().to_string();
    says(
        call,
        &[
            ("server.address", "127.0.0.1"),
            ("server.port", &port),
            ("http.response.status_code", "200"),
            ("gen_ai.request.model", TINY),
            ("vecho.inputs", "2"),
            ("vecho.requests", "1"),
            ("vecho.outcome", "ok"),
        ],
    );
    assert!(call.said("gen_ai.usage.input_tokens").is_some() && call.said("http.request.resend_count").is_none());
    assert!(spans.iter().all(|span| !span.has_failed() && span.links().is_empty()));
}

#[tokio::test]
async fn a_hit_is_one_span_with_its_source() {
    let ground = Ground::start().await;
    ground.embed(&["a"]).await;
    ground.collector.has(4).await;
    // The third answer comes from the reply cache.
    for hits in 1..=3 {
        assert_eq!(ground.embed(&["a"]).await.sources(), "memory=1");
        let spans = ground.collector.has(4 + hits).await;
        let hit = spans.last().expect("there are spans");
        assert_eq!((hit.proto.name.as_str(), hit.parent().as_str()), (REQUEST, ""));
        says(
            hit,
            &[
                ("vecho.outcome", "hit"),
                ("vecho.sources", "memory=1"),
                ("vecho.tokens.billed", "0"),
                ("gen_ai.response.model", TINY),
            ],
        );
    }
}

#[tokio::test]
async fn a_redis_lookup_has_a_span() {
    let redis = Redis::start();
    let url = redis.url();
    let ground = Ground::with(&[("redis.url", &url), ("redis.timeout", "5s"), ("redis.lease", "5s")]).await;
    ground.front.reaches("vecho_ready", 1.0).await;
    let down = "vecho_cache_tier_down{tier=\"redis\"}";
    crate::harness::eventually("Redis is up", async || ground.front.metric(down).await == 0.0).await;
    ground.embed(&["a"]).await;
    let spans = ground.collector.has_all(&[REQUEST, "look up redis", "wait", "lease", "queue", CALL]).await;
    let (request, redis, lease) = (only(&spans, REQUEST), only(&spans, "look up redis"), only(&spans, "lease"));
    assert_eq!((redis.parent(), lease.parent()), (request.id(), only(&spans, "wait").id()));
    says(redis, &[("vecho.tier", "redis"), ("vecho.found", "0")]);
}

#[tokio::test]
async fn every_attempt_of_a_call_is_a_span() {
    let ground = Ground::start().await;
    ground.front.stub.next(answer(503, Vec::new()));
    ground.front.stub.next(Behaviour::HangUp);
    assert_eq!(ground.in_trace(&["a"]).send().await.status, 200);
    let spans = ground.collector.has_all(&[REQUEST]).await;
    let calls = all(&spans, CALL);
    assert_eq!(calls.len(), 3, "{:?}", names(&spans));
    let wait = only(&spans, "wait").id();
    assert!(calls.iter().all(|call| call.parent() == wait));
    assert_eq!(calls.iter().map(|call| call.has_failed()).collect::<Vec<_>>(), [true, true, false]);
    says(calls[0], &[("http.response.status_code", "503"), ("error.type", "503"), ("vecho.outcome", "unavailable")]);
    says(calls[1], &[("error.type", "unavailable"), ("http.request.resend_count", "1")]);
    says(calls[2], &[("http.request.resend_count", "2")]);
    let ids: Vec<String> = calls.iter().map(|call| format!("00-{TRACE}-{}-01", call.id())).collect();
    assert_eq!(ground.parents_sent(), ids, "each goes up under its own span");
    assert!(!only(&spans, REQUEST).has_failed());
}

#[tokio::test]
async fn only_server_errors_mark_a_request_span_as_failed() {
    let ground = Ground::with(&[("retry.max_attempts", "1")]).await;
    for (status, has_failed, spans) in [(401, false, 4), (500, true, 8)] {
        ground.front.stub.next(answer(status, Vec::new()));
        assert_eq!(ground.embed(&["a"]).await.status, status);
        let spans = ground.collector.has(spans).await;
        let last = |name| *all(&spans, name).last().expect("it is there");
        let (request, call) = (last(REQUEST), last(CALL));
        assert_eq!((request.has_failed(), call.has_failed()), (has_failed, true), "a client's span fails for both");
        assert_eq!(request.said("error.type"), has_failed.then(|| status.to_string()));
        says(request, &[("http.response.status_code", &status.to_string())]);
    }
}

#[tokio::test]
async fn a_bypass_has_its_own_client_span() {
    let ground = Ground::start().await;
    let request = Request::builder()
        .method(Method::GET)
        .uri(ground.front.url("/v1/echo?secret=hidden"))
        .header("traceparent", traceparent("01"))
        .header("tracestate", "a=1")
        .body(Full::default())
        .expect("a legal request");
    let answer = Client::new().send(request).await.expect("an answer");
    let spans = ground.collector.has(2).await;
    let (server, client) = match [&spans[0], &spans[1]] {
        [client, server] if server.proto.kind == 2 => (server, client),
        [server, client] => (server, client),
    };
    assert_eq!((server.parent().as_str(), client.parent()), (SPAN, server.id()));
    assert_eq!([server, client].map(|span| span.proto.name.as_str()), ["GET", "GET"]);
    let headers = answer.json()["headers"].clone();
    let sent = |name: &str| {
        let pairs = headers.as_array().expect("the echo lists headers").iter();
        pairs.filter(|pair| pair[0] == name).map(|pair| pair[1].clone()).collect::<Vec<_>>()
    };
    assert_eq!(sent("traceparent"), [json!(format!("00-{TRACE}-{}-01", client.id()))]);
    assert_eq!(sent("tracestate"), [json!("a=1")]);
    says(server, &[("url.path", "/v1/echo"), ("vecho.outcome", "forwarded"), ("http.response.status_code", "200")]);
    says(client, &[("http.request.method", "GET"), ("server.address", "127.0.0.1")]);
}

#[tokio::test]
async fn an_uncached_request_has_its_bypass_reason() {
    let ground = Ground::start().await;
    let body = json!({"model": TINY, "input": "a", "late_chunking": true});
    ground.front.ask(&body).await;
    let spans = ground.collector.has(2).await;
    let request = only(&spans, REQUEST);
    says(request, &[("vecho.outcome", "bypass"), ("vecho.bypass.reason", "unknown_field")]);
    assert_eq!(ground.parents_sent(), [format!("00-{}-{}-01", request.trace_id(), only(&spans, "POST").id())]);
}

#[tokio::test]
async fn a_disconnected_caller_leaves_a_cancelled_span_and_a_completed_call() {
    let ground = Ground::start().await;
    ground.front.stub.always(Behaviour::Gate);
    let body = texts_of(&["a"]).to_string();
    let mut socket = TcpStream::connect(ground.front.public()).await.expect("the port is open");
    let length = body.len();
    let head = format!(
        "POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    socket.write_all((head + &body).as_bytes()).await.expect("the request must be taken");
    ground.front.stub.held(1).await;
    drop(socket);
    let spans = ground.collector.has(3).await;
    says(only(&spans, REQUEST), &[("vecho.outcome", "cancelled")]);
    ground.front.stub.release(1);
    let spans = ground.collector.has(4).await;
    let (call, wait) = (only(&spans, CALL), only(&spans, "wait"));
    assert_eq!((call.parent(), call.trace_id()), (wait.id(), wait.trace_id()));
    assert!(!call.has_failed());
}
