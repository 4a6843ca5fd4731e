//! The latest requests, without any of their content.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::labels::{Outcome, Route};
use super::savings::UsageLabels;

/// Maximum number of stored requests.
pub const MAX_RECENT: usize = 100;

/// A request of the public port that ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Part of the port that answered.
    pub route: Route,
    /// Outcome of the request.
    pub outcome: Outcome,
    /// Status of the response; `None` if the client had disconnected.
    pub status: Option<u16>,
    /// Time at which its head was complete.
    pub begun: Instant,
    /// Time from the head to the begin of the response.
    pub elapsed: Duration,
    /// Model, namespace and number of inputs, if the request was parsed.
    pub subject: Option<RequestUsage>,
}

/// Known properties of an embeddings request.
#[derive(Clone, Debug)]
pub struct RequestUsage {
    /// Model and namespace.
    pub named: Arc<UsageLabels>,
    /// Number of inputs.
    pub inputs: u64,
}

/// A recent request for display.
#[derive(Clone, Debug, Serialize)]
pub struct Recent {
    /// Unique id.
    pub id: u64,
    /// End of the request, in milliseconds since the epoch.
    pub at_ms: u64,
    /// Part of the port that answered.
    pub route: &'static str,
    /// Outcome of the request.
    pub outcome: &'static str,
    /// Status of the response; `None` if the client had disconnected.
    pub status: Option<u16>,
    /// Time from the head to the begin of the response.
    pub elapsed_ms: f64,
    /// The requested model, if known.
    pub model: Option<String>,
    /// The namespace; empty without one.
    pub namespace: Option<String>,
    /// Number of inputs.
    pub inputs: Option<u64>,
}

/// The latest requests of one shard.
#[derive(Debug)]
pub(super) struct Ring {
    last: VecDeque<(Duration, Ended)>,
    /// Total number of requests so far.
    count: u64,
}

impl Ring {
    pub(super) fn new() -> Self {
        Self { last: VecDeque::with_capacity(MAX_RECENT), count: 0 }
    }

    pub(super) fn push(&mut self, at: Duration, ended: Ended) {
        if self.last.len() == MAX_RECENT {
            self.last.pop_front();
        }
        self.last.push_back((at, ended));
        self.count += 1;
    }

    /// Returns the requests after the first `seen`, each with its number, and updates `seen`.
    pub(super) fn after(&self, seen: &mut u64) -> Vec<(u64, Duration, Ended)> {
        // Number of the oldest stored request, counted from the first ever.
        let first = self.count - self.last.len() as u64;
        let numbered = (first..).zip(&self.last).skip_while(|(number, _)| number < seen);
        let new = numbered.map(|(number, (at, ended))| (number, *at, ended.clone())).collect();
        // Requests that left the ring before they were read are skipped.
        *seen = self.count;
        new
    }
}

impl Recent {
    pub(super) fn new(id: u64, at_ms: u64, ended: Ended) -> Self {
        let Ended { route, outcome, status, elapsed, subject, .. } = ended;
        let named = subject.as_ref().map(|subject| &subject.named);
        Self {
            id,
            at_ms,
            route: route.label(),
            outcome: outcome.label(),
            status,
            elapsed_ms: elapsed.as_secs_f64() * 1000.0,
            model: named.map(|named| named.model.to_string()),
            namespace: named.map(|named| named.namespace.to_string()),
            inputs: subject.map(|subject| subject.inputs),
        }
    }
}
