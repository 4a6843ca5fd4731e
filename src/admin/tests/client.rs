//! Requests to the ops port without a socket, and their responses.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::Value;

use crate::admin::{AdminContext, handle};

pub(super) struct TestResponse {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    body: Bytes,
}

impl TestResponse {
    pub(super) fn json(&self) -> Value {
        assert_eq!(self.headers[CONTENT_TYPE], "application/json");
        serde_json::from_slice(&self.body).expect("the body must be JSON")
    }

    pub(super) fn bytes(&self) -> Bytes {
        self.body.clone()
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).expect("the body must be text")
    }
}

pub(super) fn request(method: &Method, uri: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(uri).header(HOST, "localhost:7862");
    request.body(Full::new(body.into())).expect("the request must be valid")
}

pub(super) async fn send<B>(context: &AdminContext, request: Request<B>) -> TestResponse
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let peer = "127.0.0.1:50000".parse().expect("the peer must be an address");
    let (head, body) = handle(context, request, peer).await.into_parts();
    assert_eq!(head.headers[CACHE_CONTROL], "no-store");
    let body = body.collect().await.expect("a full body cannot fail").to_bytes();
    TestResponse { status: head.status, headers: head.headers, body }
}

pub(super) async fn get(context: &AdminContext, uri: &str) -> TestResponse {
    send(context, request(&Method::GET, uri, "")).await
}

pub(super) async fn post(context: &AdminContext, uri: &str, body: &str) -> TestResponse {
    send(context, request(&Method::POST, uri, body.to_owned())).await
}

/// Returns the member names of an object, sorted.
pub(super) fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

pub(super) fn assert_error(answer: &TestResponse, status: StatusCode, code: &str) {
    let body = answer.json();
    assert_eq!(answer.status, status, "{body}");
    assert_eq!(keys(&body), ["error"]);
    assert_eq!(keys(&body["error"]), ["code", "message", "param", "type"]);
    assert_eq!(body["error"]["code"], code, "{body}");
}
