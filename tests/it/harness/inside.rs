//! vecho inside the test's own process, for tests that advance its clock.

use std::borrow::Borrow;
use std::net::SocketAddr;

use serde_json::Value;
use vecho::app::{App, Stopped, Surroundings};
use vecho::config::Config;
use vecho::process::clock::Clock;

use super::client::{Answer, Client, post};
use super::ops;

/// A running vecho with a manual wall clock.
pub(crate) struct Inside {
    app: App,
    pub(crate) clock: Clock,
    pub(crate) client: Client,
}

impl Inside {
    /// Starts vecho in front of an upstream, with these configuration keys.
    pub(crate) async fn start(upstream: &str, pairs: &[(&str, &str)]) -> Self {
        let own = [("listen", "127.0.0.1:0"), ("admin_listen", "127.0.0.1:0"), ("upstream.url", upstream)];
        let config = Config::from_pairs(&[&own[..], pairs].concat()).unwrap_or_else(|faults| panic!("{faults}"));
        let clock = Clock::manual(1_700_000_000_000);
        let app = App::start(config, Surroundings::detached(clock.clone())).await.expect("it must start");
        Self { app, clock, client: Client::new() }
    }

    pub(crate) fn embeddings_url(&self) -> String {
        format!("http://{}/v1/embeddings", self.app.public_addr())
    }

    pub(crate) fn public(&self) -> SocketAddr {
        self.app.public_addr()
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.app.admin_addr()
    }

    /// Stops it gracefully.
    pub(crate) async fn stop(self) -> Stopped {
        self.app.stop().await
    }

    /// Posts an embeddings request. Panics if the answer does not arrive completely.
    pub(crate) async fn embed(&self, body: impl Borrow<Value>) -> Answer {
        self.client.post(&self.embeddings_url(), body.borrow()).await
    }

    /// Like [`Inside::embed`], with further headers.
    pub(crate) async fn embed_with(&self, headers: &[(&str, &str)], body: impl Borrow<Value>) -> Answer {
        let mut request = post(&self.embeddings_url(), body.borrow());
        for (name, value) in headers {
            let name = http::HeaderName::from_bytes(name.as_bytes()).expect("a test's header name is legal");
            request.headers_mut().append(name, value.parse().expect("a test's header value is legal"));
        }
        self.client.send(request).await.expect("the answer must arrive")
    }

    /// Returns the value of one series of its metrics.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        ops::metric(self.admin(), series).await
    }

    /// Returns its health report.
    pub(crate) async fn health(&self) -> Value {
        self.client.get(&format!("http://{}/api/performance/health", self.admin())).await.json()
    }
}
