//! vecho in front of a dialect's server, for tests that are not rows of the matrix.

use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use vecho::app::App;

use super::dialect::Dialect;
use super::run::start;
use super::server::Server;
use super::verdict::{has_vectors, shown, word};
use crate::harness::client::{Answer, raw};
use crate::harness::stub::{Input, Space};
use crate::harness::{Client, eventually, ops};

/// A server, vecho with the default configuration in front of it, and a client.
pub(crate) struct Front {
    pub(crate) server: Server,
    app: App,
    client: Client,
}

impl Front {
    pub(crate) async fn new(dialect: Dialect, settings: &[(&str, &str)]) -> Self {
        let server = Server::start(dialect).await;
        let app = start(&server.url("/v1"), settings).await.unwrap_or_else(|fault| panic!("{fault}"));
        Self { server, app, client: Client::new() }
    }

    /// Requests texts. A single text is sent as a string, several as a list.
    pub(crate) async fn ask(&self, model: &str, texts: &[String]) -> Answer {
        self.send(&body(model, texts)).await
    }

    pub(crate) async fn send(&self, body: &Value) -> Answer {
        self.send_bytes(&body.to_string()).await
    }

    /// Sends a body exactly as written.
    pub(crate) async fn send_bytes(&self, body: &str) -> Answer {
        self.client.send(self.request(body)).await.expect("vecho answers")
    }

    /// Sends a body in a task and returns its handle.
    pub(crate) fn send_meanwhile(&self, body: &Value) -> JoinHandle<Answer> {
        let (client, request) = (self.client.clone(), self.request(&body.to_string()));
        tokio::spawn(async move { client.send(request).await.expect("vecho answers") })
    }

    fn request(&self, body: &str) -> http::Request<http_body_util::Full<bytes::Bytes>> {
        let mut request = raw(Method::POST, &self.url("/v1/embeddings"), body.to_owned());
        request.headers_mut().insert("authorization", "Bearer sk-of-the-caller".parse().expect("it is a value"));
        request
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.app.public_addr())
    }

    /// Requests one text and expects its vector after exactly one call.
    pub(crate) async fn expect_miss(&self, model: &str, text: &str) {
        let before = self.server.count();
        let answer = self.ask(model, &[text.to_owned()]).await;
        expect_vectors(&answer, model, &[text.to_owned()]);
        assert_eq!((word(&answer), self.server.count() - before), ("miss", 1), "{model} {text}");
    }

    /// Requests one text and expects this status and this error message, and no mock.
    pub(crate) async fn expect_error(&self, model: &str, text: &str, expected: (u16, &str)) {
        let answer = self.ask(model, &[text.to_owned()]).await;
        expect_failure(&answer, expected);
    }

    /// Sends requests one after the other while a call is held, and releases the call when all of them are queued.
    pub(crate) async fn queue_behind_a_held_call(&self, bodies: &[Value]) -> Vec<Answer> {
        let before = self.server.count();
        self.server.hold();
        let held = self.send_meanwhile(&body("blocker", &["held".to_owned()]));
        eventually("the call is held", async || self.server.count() > before).await;
        let (mut sent, mut inputs) = (Vec::new(), 0);
        for body in bodies {
            sent.push(self.send_meanwhile(body));
            inputs += body["input"].as_array().map_or(1, Vec::len);
            let queued = async || self.queued().await >= f64::from(u32::try_from(inputs).expect("a test is small"));
            eventually(&format!("{inputs} inputs wait"), queued).await;
        }
        self.server.release();
        expect_vectors(&held.await.expect("the held request ends"), "blocker", &["held".to_owned()]);
        join_all(sent).await.into_iter().map(|answer| answer.expect("a request ends")).collect()
    }

    async fn queued(&self) -> f64 {
        ops::metric(self.app.admin_addr(), "vecho_upstream_queued_inputs").await
    }
}

/// Returns the body of a request for texts, without further members.
pub(crate) fn body(model: &str, texts: &[String]) -> Value {
    match texts {
        [text] => json!({"model": model, "input": text}),
        texts => json!({"model": model, "input": texts}),
    }
}

/// Returns the server's vectors of a model's texts.
pub(crate) fn vectors(model: &str, texts: &[String]) -> Vec<Vec<f32>> {
    let space = Space { model: model.to_owned(), ..Space::default() };
    texts.iter().map(|text| space.vector(&Input::from(text))).collect()
}

/// Checks that the answer has exactly the vectors of these texts.
pub(crate) fn expect_vectors(answer: &Answer, model: &str, texts: &[String]) {
    has_vectors(answer, &vectors(model, texts))
        .unwrap_or_else(|complaint| panic!("{model} {:?}: {complaint}", texts[0]));
}

/// Checks that the answer is an error of the server with this status and message, not a mock.
pub(crate) fn expect_failure(answer: &Answer, (status, message): (u16, &str)) {
    assert_eq!(answer.status, status, "{} {}", word(answer), shown(answer));
    assert!(String::from_utf8_lossy(&answer.body).contains(message), "{message:?} in {}", shown(answer));
}

/// Returns `count` different texts.
pub(crate) fn texts(word: &str, count: usize) -> Vec<String> {
    (0..count).map(|at| format!("{word} {at}")).collect()
}
