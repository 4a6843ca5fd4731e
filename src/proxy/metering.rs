//! Costs of embeddings requests that pass through uncached. Their answers are streamed, so the tokens are read from the
//! beginning or the end of the body, where services put them.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, HeaderValue};
use http::{HeaderMap, Request, StatusCode};
use serde::Deserialize;

use super::controls::namespace;
use crate::spend::{OverBudget, Purchase, SpendGuard, SpendReservation};
use crate::upstream::{ClientBody, deployment};
use crate::wire::reported_tokens;

/// Bytes at each end of an answer that are kept until it has passed.
const KEPT_BYTES: usize = 1024;
/// Bytes of a body for each expected token, as in [`tokens`](crate::wire::tokens).
const BYTES_PER_TOKEN: u64 = 3;

/// Expected cost of a request whose body was read.
#[derive(Clone, Debug, Default)]
pub(super) struct BypassCost {
    model: Option<String>,
    body_bytes: u64,
}

#[derive(Deserialize)]
struct NamedModel {
    model: Option<String>,
}

impl BypassCost {
    /// Reads the model of a body, if it names one.
    pub(super) fn of_body(body: &[u8]) -> Self {
        let model = serde_json::from_slice::<NamedModel>(body).ok().and_then(|named| named.model);
        Self { model, body_bytes: body.len() as u64 }
    }

    /// Returns the cost of a request whose body is not read, by its stated length.
    fn of_head(headers: &HeaderMap) -> Self {
        let stated = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        Self { model: None, body_bytes: stated.unwrap_or(0) }
    }
}

/// Meter of one request: counts its cost on drop.
pub(super) struct BypassMeter {
    guard: Arc<SpendGuard>,
    /// Given back after the cost was counted.
    _reservation: SpendReservation,
    namespace: Option<String>,
    model: String,
    estimate: u64,
    /// False if the service has answered with an error, or has not got the request.
    is_billed: bool,
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl BypassMeter {
    /// Sets the expected cost of a request aside. Returns nothing if there is no budget.
    pub(super) fn begin(
        guard: &Arc<SpendGuard>,
        request: &mut Request<ClientBody>,
        cost: Option<&BypassCost>,
    ) -> Result<Option<Box<Self>>, Box<OverBudget>> {
        if guard.is_off() {
            return Ok(None);
        }
        let cost = cost.cloned().unwrap_or_else(|| BypassCost::of_head(request.headers()));
        let in_path = || deployment(request.uri().path()).unwrap_or_default();
        let (model, estimate) = (cost.model.unwrap_or_else(in_path), cost.body_bytes.div_ceil(BYTES_PER_TOKEN).max(1));
        let namespace = namespace(request.headers()).map(|name| String::from_utf8_lossy(name).into_owned());
        let purchase = Purchase { namespace: namespace.as_deref(), model: &model, answered: None };
        let reservation = guard.reserve(&purchase, estimate)?;
        // The tokens of a compressed answer cannot be read while it passes.
        request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let (guard, head, tail) = (Arc::clone(guard), Vec::new(), Vec::new());
        Ok(Some(Box::new(Self {
            guard,
            _reservation: reservation,
            namespace,
            model,
            estimate,
            // A client that leaves before the answer ends the request, and the service may go on.
            is_billed: true,
            head,
            tail,
        })))
    }

    /// Takes note of the status of the answer.
    pub(super) fn answered(&mut self, status: StatusCode) {
        // A service that takes too long may still have done the work.
        self.is_billed = status.is_success() || status == StatusCode::GATEWAY_TIMEOUT;
    }

    /// Takes note of a piece of the body.
    pub(super) fn see(&mut self, piece: &Bytes) {
        let missing = KEPT_BYTES.saturating_sub(self.head.len()).min(piece.len());
        self.head.extend_from_slice(&piece[..missing]);
        self.tail.extend_from_slice(&piece[piece.len().saturating_sub(KEPT_BYTES)..]);
        let excess = self.tail.len().saturating_sub(KEPT_BYTES);
        self.tail.drain(..excess);
    }
}

impl Drop for BypassMeter {
    fn drop(&mut self) {
        if self.is_billed {
            let reported = reported_tokens(&self.tail).or_else(|| reported_tokens(&self.head));
            let purchase = Purchase { namespace: self.namespace.as_deref(), model: &self.model, answered: None };
            self.guard.spend(&purchase, reported.unwrap_or(self.estimate));
        }
    }
}
