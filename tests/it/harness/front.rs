//! vecho inside the test's own process, with its own stub as upstream and a clock that the test advances.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use vecho::app::{App, Surroundings};
use vecho::config::Config;
use vecho::process::clock::Clock;

use super::client::{Answer, Client, raw};
use super::stub::{DEADLINE, Stub};

/// A model with short vectors.
pub(crate) const TINY: &str = "tiny";

/// Free ports and short waits. Errors are returned unchanged unless a test sets a fallback.
const SETTINGS: [(&str, &str); 6] = [
    ("listen", "127.0.0.1:0"),
    ("admin_listen", "127.0.0.1:0"),
    ("retry.base_wait", "1ms"),
    ("retry.max_wait", "1ms"),
    ("breaker.failures", "0"),
    ("fallback.mode", "error"),
];

/// A stub, vecho in front of it, and a client.
pub(crate) struct Front {
    pub(crate) stub: Stub,
    pub(crate) clock: Clock,
    app: App,
    client: Client,
}

/// A request that can still be changed.
pub(crate) struct Ask {
    client: Client,
    request: Request<Full<Bytes>>,
}

impl Front {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// Starts a front with additional settings.
    pub(crate) async fn with(settings: &[(&str, &str)]) -> Self {
        Self::behind("/v1", settings).await
    }

    /// Starts a front whose base URL has this path, with additional settings.
    pub(crate) async fn behind(base_path: &str, settings: &[(&str, &str)]) -> Self {
        let stub = Stub::start();
        let (base_url, clock) = (format!("{}{base_path}", stub.root_url()), Clock::manual(1_700_000_000_000));
        let is_set = |key: &str| settings.iter().any(|(set, _)| *set == key);
        let mut pairs = vec![("upstream.url", base_url.as_str())];
        pairs.extend(SETTINGS.iter().filter(|(key, _)| !is_set(key)));
        pairs.extend(settings);
        let config = Config::from_pairs(&pairs).expect("a test's settings are legal");
        let app = App::start(config, Surroundings::detached(clock.clone())).await.expect("it must start");
        Self { stub, clock, app, client: Client::new() }
    }

    /// Returns the URL of a path on the public port.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.app.public_addr())
    }

    pub(crate) fn public(&self) -> std::net::SocketAddr {
        self.app.public_addr()
    }

    pub(crate) fn admin(&self) -> std::net::SocketAddr {
        self.app.admin_addr()
    }

    /// Builds an embeddings request with exactly these bytes as its body.
    pub(crate) fn post(&self, body: impl Into<Bytes>) -> Ask {
        self.post_to("/v1/embeddings", body)
    }

    pub(crate) fn post_to(&self, path: &str, body: impl Into<Bytes>) -> Ask {
        Ask { client: self.client.clone(), request: raw(Method::POST, &self.url(path), body) }
    }

    /// Sends an embeddings request. Panics if the answer does not arrive completely.
    pub(crate) async fn ask(&self, body: &Value) -> Answer {
        self.post(body.to_string()).send().await
    }

    /// Requests texts of [`TINY`].
    pub(crate) async fn embed(&self, texts: &[&str]) -> Answer {
        self.ask(&texts_of(texts)).await
    }

    /// Returns the number of embeddings calls that the stub has received.
    pub(crate) fn calls(&self) -> usize {
        self.stub.embedding_calls().len()
    }

    /// Returns the texts of each embeddings call, in order of arrival.
    pub(crate) fn texts_sent(&self) -> Vec<Vec<String>> {
        self.stub.embedding_calls().iter().map(super::stub::Call::texts).collect()
    }

    /// Purges the caches through the ops port.
    pub(crate) async fn purge(&self, query: &str) -> Answer {
        let url = format!("http://{}/api/performance/cache{query}", self.app.admin_addr());
        self.client.send(raw(Method::DELETE, &url, "")).await.expect("the answer must arrive")
    }

    /// Returns the ops port's explanation of a request.
    pub(crate) async fn explain(&self, body: &str) -> Value {
        let url = format!("http://{}/api/performance/cache/explain", self.app.admin_addr());
        let mut ask = raw(Method::POST, &url, body.to_owned());
        ask.headers_mut().insert("content-type", "application/json".parse().expect("it is a value"));
        self.client.send(ask).await.expect("the answer must arrive").json()
    }

    /// Returns the value of one series on the metrics page.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let page = self.client.get(&format!("http://{}/metrics", self.app.admin_addr())).await;
        let page = String::from_utf8(page.body.to_vec()).expect("metrics are text");
        let value = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        let value = value.unwrap_or_else(|| panic!("no series {series} on the page:\n{page}"));
        value.parse().expect("a metric is a number")
    }

    /// Returns the ops port's verdict on the process.
    pub(crate) async fn health(&self) -> Value {
        self.client.get(&format!("http://{}/api/performance/health", self.app.admin_addr())).await.json()
    }

    /// Waits until a series is at `value` or above.
    pub(crate) async fn reaches(&self, series: &str, value: f64) {
        let begun = Instant::now();
        while self.metric(series).await < value {
            assert!(begun.elapsed() < DEADLINE, "{series} must reach {value}");
            tokio::task::yield_now().await;
        }
    }

    /// Waits until a series is at zero.
    pub(crate) async fn falls_to_zero(&self, series: &str) {
        let begun = Instant::now();
        while self.metric(series).await > 0.0 {
            assert!(begun.elapsed() < DEADLINE, "{series} must fall to zero");
            tokio::task::yield_now().await;
        }
    }

    /// Advances the clock.
    pub(crate) fn pass(&self, time: Duration) {
        self.clock.advance_ms(u64::try_from(time.as_millis()).expect("a test's time is short"));
    }
}

impl Ask {
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        let value = HeaderValue::from_str(value).expect("a test's header is legal");
        self.request.headers_mut().insert(HeaderName::from_static(name), value);
        self
    }

    pub(crate) fn without(mut self, name: &'static str) -> Self {
        self.request.headers_mut().remove(name);
        self
    }

    /// Sets the credential.
    pub(crate) fn key(self, key: &str) -> Self {
        self.header("authorization", &format!("Bearer {key}"))
    }

    /// Sends the request. Panics if the answer does not arrive completely.
    pub(crate) async fn send(self) -> Answer {
        self.client.send(self.request).await.expect("the answer must arrive")
    }

    /// Sends the request in a task and returns its handle.
    pub(crate) fn send_meanwhile(self) -> JoinHandle<Answer> {
        tokio::spawn(self.send())
    }
}

/// Returns a request for texts of [`TINY`].
pub(crate) fn texts_of(texts: &[&str]) -> Value {
    json!({"model": TINY, "input": texts})
}

/// Returns the upstream's vectors for texts of [`TINY`].
pub(crate) fn tiny(texts: &[&str]) -> Vec<Vec<f32>> {
    texts.iter().map(|text| Stub::vector(TINY, None, *text)).collect()
}
