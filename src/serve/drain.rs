//! Graceful shutdown of a server: the port closes, requests in flight finish, and the rest is cut after a timeout.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::task::Context;
use std::time::Duration;

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::end::ConnectionEnd;
use crate::process::tasks::Tasks;

/// Time for cut connections to release their resources.
const CUT_GRACE: Duration = Duration::from_secs(1);

/// Handle of a running server. Cheap to clone; clones refer to the same server, and dropping them does not stop it.
#[derive(Clone, Debug)]
pub struct Running {
    local: SocketAddr,
    state: Arc<ServerState>,
}

/// Result of a drain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Connections that finished their work and closed.
    pub finished: usize,
    /// Connections that were cut before their work was finished.
    pub cut: usize,
}

impl Running {
    pub(super) fn new(local: SocketAddr, state: Arc<ServerState>) -> Self {
        Self { local, state }
    }

    /// Returns the address of the server.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Returns the number of open connections, including idle ones. Upgraded connections are not included.
    pub fn connections(&self) -> usize {
        self.state.served.load(SeqCst)
    }

    /// Stops the server. Closes the port and idle connections at once. Requests in flight get at most `timeout`, and
    /// are then cut.
    pub async fn drain(&self, timeout: Duration) -> Drained {
        let state = &self.state;
        // Set the flag before the wake-ups, because a woken connection checks it.
        state.drains.store(true, SeqCst);
        state.drain.cancel();
        let mut stuck = state.connections.join(timeout).await;
        if stuck > 0 {
            state.cut.cancel();
            stuck = state.connections.join(CUT_GRACE).await;
        }
        // Connections that are still stuck hold their guards, so `cut_off` does not include them.
        Drained { finished: state.finished.load(SeqCst), cut: state.cut_off.load(SeqCst) + stuck }
    }
}

/// Shutdown state shared by a server and its connections.
#[derive(Debug, Default)]
pub(super) struct ServerState {
    drains: AtomicBool,
    drain: CancellationToken,
    cut: CancellationToken,
    served: AtomicUsize,
    finished: AtomicUsize,
    cut_off: AtomicUsize,
    /// The accept loop and the connections. A drain waits for them.
    pub(super) connections: Tasks,
    /// Tasks that end with or soon after the connections: HTTP/2 streams, and refusals of connections over the limit.
    pub(super) aside: Tasks,
}

impl ServerState {
    /// Resolves when the drain begins.
    pub(super) fn draining(&self) -> WaitForCancellationFutureOwned {
        self.drain.clone().cancelled_owned()
    }

    /// Returns the shutdown signals for one connection.
    pub(super) fn shutdown_signal(self: &Arc<Self>) -> ShutdownSignal {
        // Child tokens, so connections on different threads do not contend for one lock.
        ShutdownSignal {
            state: Arc::clone(self),
            listens: false,
            drain: Some(Box::pin(self.drain.child_token().cancelled_owned())),
            cut: Box::pin(self.cut.child_token().cancelled_owned()),
        }
    }

    /// Counts a connection until the guard is dropped.
    pub(super) fn serve_one(self: &Arc<Self>) -> ServedConnection {
        self.served.fetch_add(1, SeqCst);
        ServedConnection { state: Arc::clone(self), cut: false }
    }
}

/// Guard that counts one connection.
#[derive(Debug)]
pub(super) struct ServedConnection {
    state: Arc<ServerState>,
    cut: bool,
}

impl ServedConnection {
    /// Records how the connection ended, for the result of the drain.
    pub(super) fn ended(&mut self, end: &ConnectionEnd) {
        self.cut = matches!(end, ConnectionEnd::Cut);
    }
}

impl Drop for ServedConnection {
    fn drop(&mut self) {
        self.state.served.fetch_sub(1, SeqCst);
        // Connections that ended before the drain are no part of its result.
        if self.state.drain.is_cancelled() {
            let count = if self.cut { &self.state.cut_off } else { &self.state.finished };
            count.fetch_add(1, SeqCst);
        }
    }
}

/// Shutdown signals for one connection.
pub(super) struct ShutdownSignal {
    state: Arc<ServerState>,
    listens: bool,
    drain: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl ShutdownSignal {
    /// Returns true, once, when the signal to finish has come. Must always be polled by the same task. After the first
    /// poll it only checks a flag, because polling the token takes several locks for each request.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>) -> bool {
        if self.listens && !self.state.drains.load(SeqCst) {
            return false;
        }
        // The first poll registers the waker of this task with the token. From then on the flag suffices.
        self.listens = true;
        let ordered = self.drain.as_mut().is_some_and(|drain| drain.as_mut().poll(cx).is_ready());
        if ordered {
            // A completed future must not be polled again, and its absence enables `poll_cut`.
            self.drain = None;
        }
        ordered
    }

    /// Returns true once the signal to stop has come. It never comes before the signal to finish, so it is not polled
    /// earlier.
    pub(super) fn poll_cut(&mut self, cx: &mut Context<'_>) -> bool {
        self.drain.is_none() && self.cut.as_mut().poll(cx).is_ready()
    }
}
