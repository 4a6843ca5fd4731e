//! State that the stub's connections and its handle share.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::behaviour::Script;
use super::calls::Call;
use super::gate::Gate;
use super::quota::Quotas;

/// Limits of one request; larger requests are refused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) inputs: usize,
    pub(crate) tokens: usize,
    pub(crate) tokens_per_input: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { inputs: 2048, tokens: 300_000, tokens_per_input: 8192 }
    }
}

/// Settings, script and record of one stub.
pub(crate) struct State {
    pub(crate) script: Mutex<Script>,
    pub(crate) calls: Mutex<Vec<Call>>,
    pub(crate) limits: Mutex<Limits>,
    /// The rate limits, if the service has any.
    pub(crate) quotas: Mutex<Option<Quotas>>,
    /// The accepted API keys. `None` accepts any key.
    pub(crate) keys: Mutex<Option<HashSet<String>>>,
    pub(crate) arrived: watch::Sender<usize>,
    pub(crate) gate: Gate,
    /// Number of events that each stream may send.
    pub(crate) events: watch::Sender<usize>,
    pub(crate) uploaded_bytes: watch::Sender<usize>,
    /// Tokens of all answered embeddings calls.
    billed_tokens: AtomicU64,
    connections: AtomicU64,
    answers: AtomicU64,
}

impl State {
    pub(crate) fn new() -> Self {
        Self {
            script: Mutex::default(),
            calls: Mutex::default(),
            limits: Mutex::default(),
            quotas: Mutex::default(),
            keys: Mutex::default(),
            arrived: watch::Sender::new(0),
            gate: Gate::default(),
            events: watch::Sender::new(usize::MAX),
            uploaded_bytes: watch::Sender::new(0),
            billed_tokens: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            answers: AtomicU64::new(0),
        }
    }

    pub(crate) fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn bill(&self, tokens: usize) {
        self.billed_tokens.fetch_add(tokens as u64, Ordering::Relaxed);
    }

    pub(crate) fn billed_tokens(&self) -> u64 {
        self.billed_tokens.load(Ordering::Relaxed)
    }

    pub(crate) fn next_answer(&self) -> u64 {
        self.answers.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn record(&self, call: Call) {
        lock(&self.calls).push(call);
        self.arrived.send_modify(|arrived| *arrived += 1);
    }
}

/// Locks a mutex even after a test's panic, because the next assertion must see the record.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
