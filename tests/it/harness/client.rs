//! A pooled HTTP/1.1 client for tests that returns complete answers.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// Timeout of an answer. A test that exceeds it fails with a message that names the request.
const DEADLINE: Duration = Duration::from_mins(1);

/// A client with its own connection pool.
#[derive(Clone)]
pub(crate) struct Client(Pool<HttpConnector, Full<Bytes>>);

/// A complete answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Error for an answer that did not arrive completely: the connection was refused, reset or closed.
#[derive(Debug, thiserror::Error)]
#[error("no whole answer: {0}")]
pub(crate) struct NoAnswer(String);

impl Client {
    pub(crate) fn new() -> Self {
        let executor = TokioExecutor::new();
        Self(
            Pool::builder(executor)
                .pool_idle_timeout(Duration::from_secs(5))
                .retry_canceled_requests(false)
                .build_http(),
        )
    }

    /// Sends a request and returns the answer before its body is complete.
    pub(crate) async fn open(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, NoAnswer> {
        let name = name_of(&request);
        in_time(&name, self.0.request(request)).await.map_err(|error| NoAnswer(format!("{error:?}")))
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer, NoAnswer> {
        let name = name_of(&request);
        let (head, body) = self.open(request).await?.into_parts();
        let body = in_time(&name, body.collect()).await.map_err(|error| NoAnswer(format!("{error:?}")))?.to_bytes();
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    }

    /// Posts JSON without further headers. Panics if the answer does not arrive completely.
    pub(crate) async fn post(&self, url: &str, body: &Value) -> Answer {
        self.send(post(url, body)).await.expect("the answer must arrive")
    }

    pub(crate) async fn get(&self, url: &str) -> Answer {
        let request = Request::get(url).body(Full::default()).expect("a test's request is legal");
        self.send(request).await.expect("the answer must arrive")
    }
}

/// Returns method, address and the beginning of the body of a request.
fn name_of(request: &Request<Full<Bytes>>) -> String {
    let body = request.body().clone().into_inner().unwrap_or_default();
    let beginning = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
    format!("{} {} {beginning}", request.method(), request.uri())
}

/// Panics if an answer does not arrive before the deadline.
async fn in_time<T>(request: &str, answer: impl Future<Output = T>) -> T {
    let answered = tokio::time::timeout(DEADLINE, answer).await;
    answered.unwrap_or_else(|_| panic!("no whole answer within {DEADLINE:?} to {request}"))
}

/// Builds a JSON post, for tests that add their own headers.
pub(crate) fn post(url: &str, body: &Value) -> Request<Full<Bytes>> {
    raw(Method::POST, url, body.to_string())
}

/// Builds a request whose body need not be JSON.
pub(crate) fn raw(method: Method, url: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(url).header("content-type", "application/json");
    request.body(Full::new(body.into())).expect("a test's request is legal")
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns `x-vecho-cache`: the source of the answer, in one word.
    pub(crate) fn cache(&self) -> &str {
        self.header("x-vecho-cache").unwrap_or_else(|| panic!("no x-vecho-cache: {self:?}"))
    }

    /// Returns `x-vecho-sources`: the number of inputs from each source.
    pub(crate) fn sources(&self) -> &str {
        self.header("x-vecho-sources").unwrap_or_else(|| panic!("no x-vecho-sources: {self:?}"))
    }

    /// Returns `x-vecho-tokens`: the billed and the saved tokens.
    pub(crate) fn tokens(&self) -> &str {
        self.header("x-vecho-tokens").unwrap_or_else(|| panic!("no x-vecho-tokens: {self:?}"))
    }

    /// Returns `usage.prompt_tokens`, after checking that `total_tokens` agrees.
    pub(crate) fn usage(&self) -> u64 {
        let usage = self.json()["usage"].clone();
        assert_eq!(usage["prompt_tokens"], usage["total_tokens"]);
        usage["prompt_tokens"].as_u64().expect("tokens are a number")
    }

    /// Returns the error's type and code, after checking that the body is the API's error envelope with all four keys.
    pub(crate) fn error(&self) -> (String, Value) {
        let error = self.json()["error"].clone();
        let keys = error.as_object().map_or(0, serde_json::Map::len);
        assert_eq!(keys, 4, "message, type, param and code: {error}");
        (error["type"].as_str().expect("a type is text").to_owned(), error["code"].clone())
    }

    /// Returns the vectors in the order of `data`, parsed from floats or base64.
    pub(crate) fn vectors(&self) -> Vec<Vec<f32>> {
        let body = self.json();
        let items = body["data"].as_array().unwrap_or_else(|| panic!("no data: {body}"));
        items.iter().map(|item| vector(&item["embedding"])).collect()
    }

    /// Returns the `index` of every item, in the order of `data`.
    pub(crate) fn indices(&self) -> Vec<Option<u64>> {
        self.json()["data"].as_array().expect("data is a list").iter().map(|item| item["index"].as_u64()).collect()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the decimal text of an f32 reads back to it through f64")]
pub(crate) fn vector(embedding: &Value) -> Vec<f32> {
    match embedding {
        Value::String(text) => {
            let bytes = base64_simd::STANDARD.decode_to_vec(text.as_bytes()).expect("a vector is base64");
            bytes.as_chunks::<4>().0.iter().map(|component| f32::from_le_bytes(*component)).collect()
        }
        Value::Array(numbers) => {
            numbers.iter().map(|number| number.as_f64().expect("a component is a number") as f32).collect()
        }
        other => panic!("neither base64 nor floats: {other}"),
    }
}
