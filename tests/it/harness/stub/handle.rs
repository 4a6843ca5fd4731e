//! The handle a test holds: starts the stub, scripts it, reads its record, stops it by drop.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;

use super::behaviour::Behaviour;
use super::calls::Call;
use super::gate::{Gate, reach};
use super::server::{self, Server};
use super::state::{Limits, State, lock};
use super::vectors::{Input, Space};

/// A running stub upstream.
pub(crate) struct Stub {
    state: Arc<State>,
    server: Server,
}

impl Stub {
    /// Starts one on a free loopback port.
    pub(crate) fn start() -> Self {
        let state = Arc::new(State::new());
        let server = server::start(Arc::clone(&state));
        Self { state, server }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.server.addr
    }

    /// The base URL as applications are given it, with `/v1`.
    pub(crate) fn base_url(&self) -> String {
        format!("{}/v1", self.root_url())
    }

    pub(crate) fn root_url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// What this upstream says about one input; `dimensions` as the request states it.
    pub(crate) fn vector(model: &str, dimensions: Option<usize>, input: impl Into<Input>) -> Vec<f32> {
        Space { model: model.to_owned(), dimensions, extras: String::new() }.vector(&input.into())
    }

    /// Like [`Stub::vector`] for a request with a further field that shapes the vector (`task`, `input_type`).
    pub(crate) fn vector_with(model: &str, extra: (&str, &str), input: impl Into<Input>) -> Vec<f32> {
        let extras = format!("{}={:?}\n", extra.0, serde_json::Value::from(extra.1));
        Space { model: model.to_owned(), dimensions: None, extras }.vector(&input.into())
    }

    /// Queues a behaviour for the next call that has none queued before it.
    pub(crate) fn next(&self, behaviour: Behaviour) {
        lock(&self.state.script).push(behaviour);
    }

    /// Treats every call for which the predicate holds like this; the first rule that matches counts.
    pub(crate) fn when(&self, predicate: impl Fn(&Call) -> bool + Send + Sync + 'static, behaviour: Behaviour) {
        lock(&self.state.script).rule(Box::new(predicate), behaviour);
    }

    /// Treats every call without a queued behaviour and without a rule like this.
    pub(crate) fn always(&self, behaviour: Behaviour) {
        lock(&self.state.script).stand(behaviour);
    }

    /// Decides call by call how those are treated that have neither a queued behaviour nor a rule.
    pub(crate) fn decide(&self, decision: impl FnMut(&Call) -> Behaviour + Send + 'static) {
        lock(&self.state.script).decide(Box::new(decision));
    }

    pub(crate) fn set_limits(&self, limits: Limits) {
        *lock(&self.state.limits) = limits;
    }

    /// Accepts only these API keys from now on.
    pub(crate) fn accept_keys<const N: usize>(&self, keys: [&str; N]) {
        *lock(&self.state.keys) = Some(keys.map(str::to_owned).into());
    }

    /// Every call so far, in order of arrival.
    pub(crate) fn calls(&self) -> Vec<Call> {
        lock(&self.state.calls).clone()
    }

    /// The calls for embeddings so far.
    pub(crate) fn embedding_calls(&self) -> Vec<Call> {
        self.calls().into_iter().filter(Call::is_embeddings).collect()
    }

    /// How many inputs all calls for embeddings carried together.
    pub(crate) fn inputs_sent(&self) -> usize {
        self.embedding_calls().iter().map(|call| call.inputs().len()).sum()
    }

    /// Waits until this many calls have arrived in all.
    pub(crate) async fn arrived(&self, count: usize) {
        reach(&self.state.arrived, count, "calls arrived").await;
    }

    /// How many connections were accepted so far.
    pub(crate) fn connections(&self) -> u64 {
        self.state.connections()
    }

    /// Waits until this many calls wait at [`Behaviour::Gate`] at once.
    pub(crate) async fn held(&self, count: usize) {
        self.gate().held(count).await;
    }

    pub(crate) fn held_now(&self) -> usize {
        self.gate().held_now()
    }

    /// Lets calls go that wait at the gate, oldest first; a surplus lets later ones pass.
    pub(crate) fn release(&self, count: usize) {
        self.gate().release(count);
    }

    /// Lets every call go that waits at the gate now.
    pub(crate) fn release_all(&self) {
        self.release(self.held_now());
    }

    /// From now on a stream sends its first event and waits.
    pub(crate) fn hold_events(&self) {
        self.state.events.send_replace(1);
    }

    /// Lets every held stream send one event more.
    pub(crate) fn release_event(&self) {
        self.state.events.send_modify(|allowed| *allowed += 1);
    }

    /// Waits until uploads to `/v1/files` brought this many bytes.
    pub(crate) async fn uploaded(&self, bytes: usize) {
        reach(&self.state.uploaded_bytes, bytes, "bytes uploaded").await;
    }

    /// Refuses connections and cuts those that are open, until [`Stub::up`].
    pub(crate) async fn down(&self) {
        self.server.switch(false).await;
    }

    /// Listens again, on the same port.
    pub(crate) async fn up(&self) {
        self.server.switch(true).await;
    }

    fn gate(&self) -> &Gate {
        &self.state.gate
    }
}

/// Waits until a watched switch stands as wished.
pub(crate) async fn stands(switch: &watch::Sender<bool>, wished: bool) {
    let mut receiver = switch.subscribe();
    receiver.wait_for(|stands| *stands == wished).await.expect("the stub outlives the wait");
}
