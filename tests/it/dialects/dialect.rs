//! A server dialect: its path, its refusals, and the form of its answers. It is composed from the parts in `quirks.rs`.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::answer::Draft;
use super::received::Received;

/// Refuses or accepts a request.
pub(crate) type Check = Arc<dyn Fn(&Received) -> Result<(), Fault> + Send + Sync>;

/// Changes an answer before it is serialised.
pub(crate) type Change = Arc<dyn Fn(&Received, &mut Draft) + Send + Sync>;

/// Processing time of the server for a request.
pub(crate) type Pace = Arc<dyn Fn(&Received) -> Duration + Send + Sync>;

/// A failure of the server, in place of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A status with this message, in the error format of the dialect.
    Status(u16, String),
    /// Closes the connection without a byte.
    HangUp,
}

/// A peculiarity of the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// Compresses every answer with gzip, even if the client does not accept it.
    PacksAnswers,
    /// Closes the connection when its second request arrives.
    ClosesKept,
    /// Handles one request at a time.
    Serial,
    /// Treats repeated slashes as one, and ignores a trailing slash.
    MergesSlashes,
    /// Redirects this path to the right one with this status.
    Moved(&'static str, u16),
}

/// A server dialect.
#[derive(Clone)]
pub(crate) struct Dialect {
    pub(crate) name: &'static str,
    /// The difference from OpenAI, in one sentence.
    pub(crate) differs: &'static str,
    /// The path of the base URL.
    pub(crate) base: &'static str,
    /// The path of the embeddings route, with its required query.
    pub(crate) path: &'static str,
    pub(crate) model: &'static str,
    /// The header with the credential. `None` if the server requires no key.
    pub(crate) key_header: Option<&'static str>,
    pub(crate) errors: fn(u16, &str) -> Value,
    pub(crate) checks: Vec<Check>,
    pub(crate) changes: Vec<Change>,
    pub(crate) pace: Option<Pace>,
    pub(crate) transport: Vec<Transport>,
    /// True if base64 does not hold f32, which makes the vectors depend on the requested encoding.
    pub(crate) garbles: bool,
}

impl Dialect {
    /// Returns a server that differs from OpenAI only in its address and its model.
    pub(crate) fn new(name: &'static str, base: &'static str, path: &'static str) -> Self {
        Self {
            name,
            differs: "",
            base,
            path,
            model: "some-embedder",
            key_header: Some("authorization"),
            errors: envelope,
            checks: Vec::new(),
            changes: Vec::new(),
            pace: None,
            transport: Vec::new(),
            garbles: false,
        }
    }

    /// Returns a server that serves `/v1/embeddings`.
    pub(crate) fn v1(name: &'static str) -> Self {
        Self::new(name, "/v1", "/v1/embeddings")
    }

    pub(crate) fn differs(mut self, sentence: &'static str) -> Self {
        self.differs = sentence;
        self
    }

    pub(crate) fn model(mut self, model: &'static str) -> Self {
        self.model = model;
        self
    }

    pub(crate) fn without_key(mut self) -> Self {
        self.key_header = None;
        self
    }

    pub(crate) fn errors(mut self, errors: fn(u16, &str) -> Value) -> Self {
        self.errors = errors;
        self
    }

    pub(crate) fn check(mut self, check: impl Fn(&Received) -> Result<(), Fault> + Send + Sync + 'static) -> Self {
        self.checks.push(Arc::new(check));
        self
    }

    pub(crate) fn change(mut self, change: impl Fn(&Received, &mut Draft) + Send + Sync + 'static) -> Self {
        self.changes.push(Arc::new(change));
        self
    }

    pub(crate) fn pace(mut self, pace: impl Fn(&Received) -> Duration + Send + Sync + 'static) -> Self {
        self.pace = Some(Arc::new(pace));
        self
    }

    pub(crate) fn transport(mut self, oddity: Transport) -> Self {
        self.transport.push(oddity);
        self
    }

    pub(crate) fn has(&self, oddity: Transport) -> bool {
        self.transport.contains(&oddity)
    }

    /// Returns the status of the redirect from this path, if there is one.
    pub(crate) fn redirects(&self, path: &str) -> Option<u16> {
        self.transport.iter().find_map(|oddity| match oddity {
            Transport::Moved(from, status) if *from == path => Some(*status),
            _ => None,
        })
    }

    /// Returns the answer to a request, or the first fault that a check reports.
    pub(crate) fn answer(&self, received: &Received) -> Result<Draft, Fault> {
        self.checks.iter().try_for_each(|check| check(received))?;
        Ok(self.draft(received))
    }

    /// Returns the answer to a request without running the checks.
    pub(crate) fn draft(&self, received: &Received) -> Draft {
        let mut draft = Draft::new(received);
        self.changes.iter().for_each(|change| change(received, &mut draft));
        draft
    }
}

/// Returns a fault with a status and a message.
pub(crate) fn refuse(status: u16, message: impl Into<String>) -> Result<(), Fault> {
    Err(Fault::Status(status, message.into()))
}

/// Returns OpenAI's error envelope.
pub(crate) fn envelope(status: u16, message: &str) -> Value {
    let kind = if status < 500 { "invalid_request_error" } else { "server_error" };
    json!({"error": {"message": message, "type": kind, "param": null, "code": null}})
}

/// Returns an error of a server on `FastAPI`.
pub(crate) fn detail(_: u16, message: &str) -> Value {
    json!({ "detail": message })
}
