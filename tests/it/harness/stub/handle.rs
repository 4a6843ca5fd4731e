//! The test's handle of the stub: starts it, scripts it, reads its record, and stops it on drop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use super::behaviour::Behaviour;
use super::calls::Call;
use super::gate::{Gate, reach};
use super::quota::{Quota, Quotas};
use super::quota_record::QuotaRecord;
use super::server::{self, Server};
use super::state::{Limits, State, lock};
use super::vectors::{Input, Space};

/// A running stub upstream.
pub(crate) struct Stub {
    state: Arc<State>,
    server: Server,
}

impl Stub {
    /// Starts a stub on a free loopback port.
    pub(crate) fn start() -> Self {
        let state = Arc::new(State::new());
        let server = server::start(Arc::clone(&state));
        Self { state, server }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.server.addr
    }

    /// Returns the base URL for applications, with `/v1`.
    pub(crate) fn base_url(&self) -> String {
        format!("{}/v1", self.root_url())
    }

    pub(crate) fn root_url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// Returns this upstream's vector of one input, with `dimensions` as in the request.
    pub(crate) fn vector(model: &str, dimensions: Option<usize>, input: impl Into<Input>) -> Vec<f32> {
        Space { model: model.to_owned(), dimensions, extras: String::new() }.vector(&input.into())
    }

    /// Like [`Stub::vector`], for a request with a further field that shapes the vector (`task`, `input_type`).
    pub(crate) fn vector_with(model: &str, extra: (&str, &str), input: impl Into<Input>) -> Vec<f32> {
        let extras = format!("{}={:?}\n", extra.0, serde_json::Value::from(extra.1));
        Space { model: model.to_owned(), dimensions: None, extras }.vector(&input.into())
    }

    /// Queues a behaviour for the next call. Each call takes one behaviour from the queue.
    pub(crate) fn next(&self, behaviour: Behaviour) {
        lock(&self.state.script).push(behaviour);
    }

    /// Adds a rule for calls that match the predicate. The first matching rule applies.
    pub(crate) fn when(&self, predicate: impl Fn(&Call) -> bool + Send + Sync + 'static, behaviour: Behaviour) {
        lock(&self.state.script).rule(Box::new(predicate), behaviour);
    }

    /// Sets the standing behaviour of calls without a queued behaviour and without a matching rule.
    pub(crate) fn always(&self, behaviour: Behaviour) {
        lock(&self.state.script).stand(behaviour);
    }

    /// Decides the behaviour of each call that has neither a queued behaviour nor a matching rule.
    pub(crate) fn decide(&self, decision: impl FnMut(&Call) -> Behaviour + Send + 'static) {
        lock(&self.state.script).decide(Box::new(decision));
    }

    pub(crate) fn set_limits(&self, limits: Limits) {
        *lock(&self.state.limits) = limits;
    }

    /// Limits the rate of embeddings calls from now on. Each credential and model has limits of its own.
    pub(crate) fn limit_rate(&self, quota: Quota) {
        *lock(&self.state.quotas) = Some(Quotas::new(quota, Instant::now()));
    }

    /// Returns the calls that the rate limits have judged since they were set.
    pub(crate) fn quota_record(&self) -> QuotaRecord {
        QuotaRecord::of(lock(&self.state.quotas).as_ref().expect("the test must have set rate limits"))
    }

    /// Accepts only these API keys from now on.
    pub(crate) fn accept_keys<const N: usize>(&self, keys: [&str; N]) {
        *lock(&self.state.keys) = Some(keys.map(str::to_owned).into());
    }

    /// Returns every call so far, in order of arrival.
    pub(crate) fn calls(&self) -> Vec<Call> {
        lock(&self.state.calls).clone()
    }

    /// Returns the embeddings calls so far.
    pub(crate) fn embedding_calls(&self) -> Vec<Call> {
        self.calls().into_iter().filter(Call::is_embeddings).collect()
    }

    /// Returns the total number of inputs of all embeddings calls.
    pub(crate) fn inputs_sent(&self) -> usize {
        self.embedding_calls().iter().map(|call| call.inputs().len()).sum()
    }

    /// Returns the tokens of all embeddings calls that it has answered, which it would bill.
    pub(crate) fn billed_tokens(&self) -> u64 {
        self.state.billed_tokens()
    }

    /// Waits until this many calls have arrived in total.
    pub(crate) async fn arrived(&self, count: usize) {
        reach(&self.state.arrived, count, "calls arrived").await;
    }

    /// Returns the number of connections accepted so far.
    pub(crate) fn connections(&self) -> u64 {
        self.state.connections()
    }

    /// Waits until this many calls are held at [`Behaviour::Gate`] at once.
    pub(crate) async fn held(&self, count: usize) {
        self.gate().held(count).await;
    }

    pub(crate) fn held_now(&self) -> usize {
        self.gate().held_now()
    }

    /// Releases calls at the gate, oldest first. A surplus lets later calls pass.
    pub(crate) fn release(&self, count: usize) {
        self.gate().release(count);
    }

    /// Releases every call that is held at the gate now.
    pub(crate) fn release_all(&self) {
        self.release(self.held_now());
    }

    /// From now on, a stream sends its first event and waits.
    pub(crate) fn hold_events(&self) {
        self.state.events.send_replace(1);
    }

    /// Lets every held stream send one more event.
    pub(crate) fn release_event(&self) {
        self.state.events.send_modify(|allowed| *allowed += 1);
    }

    /// Waits until uploads to `/v1/files` have sent this many bytes.
    pub(crate) async fn uploaded(&self, bytes: usize) {
        reach(&self.state.uploaded_bytes, bytes, "bytes uploaded").await;
    }

    /// Refuses new connections and closes open ones, until [`Stub::up`].
    pub(crate) async fn down(&self) {
        self.server.switch(false).await;
    }

    /// Listens again on the same port.
    pub(crate) async fn up(&self) {
        self.server.switch(true).await;
    }

    fn gate(&self) -> &Gate {
        &self.state.gate
    }
}

/// Waits until a watched switch has this value.
pub(crate) async fn stands(switch: &watch::Sender<bool>, wished: bool) {
    let mut receiver = switch.subscribe();
    receiver.wait_for(|stands| *stands == wished).await.expect("the stub outlives the wait");
}
