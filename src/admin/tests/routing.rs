//! Tests of the route table, the limits of bodies, and the guard.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, HOST};
use http::{Method, StatusCode};
use http_body_util::StreamBody;
use tokio::time::timeout;

use super::client::{assert_error, get, post, request, send};
use super::parts::{context, context_with_bodies};
use crate::admin::handle;

#[tokio::test]
async fn the_index_lists_every_route() {
    let text = get(&context(), "/").await.text();
    for route in [
        "GET    /metrics",
        "DELETE /api/performance/cache ",
        "PUT    /api/log-level",
        "POST   /api/performance/cache/explain",
    ] {
        assert!(text.contains(route), "{route}\n{text}");
    }
}

#[tokio::test]
async fn each_route_bounds_bodies_by_its_own_limit() {
    let context = context_with_bodies(4);
    let explained = post(&context, "/api/performance/cache/explain", "12345").await;
    assert_error(&explained, StatusCode::PAYLOAD_TOO_LARGE, "body_too_large");
    let large = " ".repeat((1 << 20) + 1);
    let levelled = send(&context, request(&Method::PUT, "/api/log-level", large)).await;
    assert_error(&levelled, StatusCode::PAYLOAD_TOO_LARGE, "body_too_large");
}

#[tokio::test]
async fn bodies_of_unknown_length_are_bounded() {
    let context = context_with_bodies(4);
    let frames = ["123", "45"].map(|part| Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from(part))));
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let request = request(&Method::POST, "/api/performance/cache/explain", "").map(|_| body);
    assert_error(&send(&context, request).await, StatusCode::PAYLOAD_TOO_LARGE, "body_too_large");
}

#[tokio::test]
async fn a_body_that_ends_early_is_a_bad_request() {
    let broken = [Err::<http_body::Frame<Bytes>, _>(std::io::Error::other("reset"))];
    let body = StreamBody::new(futures_util::stream::iter(broken));
    let request = request(&Method::PUT, "/api/log-level", "").map(|_| body);
    assert_error(&send(&context(), request).await, StatusCode::BAD_REQUEST, "invalid_body");
}

#[tokio::test]
async fn unknown_routes_are_404_and_wrong_methods_are_405() {
    let context = context();
    assert_error(&get(&context, "/api/nothing").await, StatusCode::NOT_FOUND, "unknown_url");
    for (method, uri, allow) in [
        (Method::POST, "/metrics", "GET, HEAD"),
        (Method::GET, "/api/performance/cache", "DELETE"),
        (Method::POST, "/api/log-level", "PUT"),
        (Method::GET, "/api/performance/optimize-memory", "POST"),
    ] {
        let answer = send(&context, request(&method, uri, "")).await;
        assert_error(&answer, StatusCode::METHOD_NOT_ALLOWED, "method_not_supported");
        assert_eq!(answer.headers[ALLOW], allow);
    }
    for path in ["/readyz", "/api/events"] {
        let asked = send(&context, request(&Method::HEAD, path, ""));
        let answer = timeout(Duration::from_secs(10), asked).await.expect("no stream may follow");
        assert_eq!(answer.status, StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn every_private_route_is_guarded() {
    let context = context();
    let closed = [
        (Method::GET, "/api/dashboard"),
        (Method::GET, "/api/events"),
        (Method::GET, "/api/config"),
        (Method::PUT, "/api/log-level"),
        (Method::DELETE, "/api/performance/cache"),
        (Method::POST, "/api/performance/optimize-memory"),
        (Method::POST, "/api/performance/cache/explain"),
        (Method::GET, "/api/performance/cache/export"),
        (Method::HEAD, "/api/performance/cache/export"),
        (Method::POST, "/api/performance/cache/import"),
    ];
    for (method, uri) in closed {
        let mut request = request(&method, uri, "debug");
        request.headers_mut().insert(HOST, "evil.example".parse().expect("a header value"));
        assert_error(&send(&context, request).await, StatusCode::FORBIDDEN, "forbidden");
    }
    assert_eq!(context.level.current(), "info");
}

#[test]
fn the_response_future_is_send() {
    fn must_be_send<T: Send>(_: &T) {}
    let context = context();
    must_be_send(&handle(&context, request(&Method::GET, "/", ""), ([127, 0, 0, 1], 1).into()));
}
