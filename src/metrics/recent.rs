//! The last requests, without anything of what they asked.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::labels::{Outcome, Route};
use super::savings::Named;

/// How many are kept.
pub const MAX_RECENT: usize = 100;

/// A request of the public port that ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Which part answered.
    pub route: Route,
    /// How.
    pub outcome: Outcome,
    /// With which status; nothing where the client was gone before.
    pub status: Option<u16>,
    /// When its head was there.
    pub begun: Instant,
    /// From then until its answer began.
    pub elapsed: Duration,
    /// For whom, and how many inputs, where it was understood.
    pub subject: Option<Subject>,
}

/// What is known of an embeddings request.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Model and namespace.
    pub named: Arc<Named>,
    /// How many inputs.
    pub inputs: u64,
}

/// One of the last requests, as it is shown.
#[derive(Clone, Debug, Serialize)]
pub struct Recent {
    /// Unlike that of any other.
    pub id: u64,
    /// When it ended, in milliseconds since the epoch.
    pub at_ms: u64,
    /// Which part answered.
    pub route: &'static str,
    /// How.
    pub outcome: &'static str,
    /// With which status; nothing where the client was gone before.
    pub status: Option<u16>,
    /// From its head until its answer began.
    pub elapsed_ms: f64,
    /// The model asked for, where it is known.
    pub model: Option<String>,
    /// The namespace; empty without one.
    pub namespace: Option<String>,
    /// How many inputs.
    pub inputs: Option<u64>,
}

/// The last requests of one shard.
#[derive(Debug)]
pub(super) struct Ring {
    last: VecDeque<(Duration, Ended)>,
    /// How many there ever were.
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

    /// Those after the first `seen`, each with its number; `seen` is moved on.
    pub(super) fn after(&self, seen: &mut u64) -> Vec<(u64, Duration, Ended)> {
        let first = self.count - self.last.len() as u64;
        let numbered = (first..).zip(&self.last).skip_while(|(number, _)| number < seen);
        let new = numbered.map(|(number, (at, ended))| (number, *at, ended.clone())).collect();
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
