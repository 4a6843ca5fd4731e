//! The orderly end of a server: the port closes, what is under way finishes, what does not finish in time is cut.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::task::Context;
use std::time::Duration;

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::watch::End;
use crate::tasks::Tasks;

/// How long cut connections get to let go of what they hold.
const CUT_GRACE: Duration = Duration::from_secs(1);

/// A server that runs. Cheap to clone; clones are the same server, and dropping them does not stop it.
#[derive(Clone, Debug)]
pub struct Running {
    local: SocketAddr,
    course: Arc<Course>,
}

/// How the connections that a drain found came to their end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Connections that closed with nothing left to do.
    pub finished: usize,
    /// Connections that were cut with something under way.
    pub cut: usize,
}

impl Running {
    pub(super) fn new(local: SocketAddr, course: Arc<Course>) -> Self {
        Self { local, course }
    }

    /// The address that it serves.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Connections that are served at present, those that wait for a request included. Upgraded ones are not.
    pub fn connections(&self) -> usize {
        self.course.served.load(SeqCst)
    }

    /// Ends the service. The port is closed at once, idle connections too; what is under way gets until `patience` is
    /// over and is then cut.
    pub async fn drain(&self, patience: Duration) -> Drained {
        let course = &self.course;
        // Before the wake-ups: who is woken looks here.
        course.drains.store(true, SeqCst);
        course.drain.cancel();
        let mut stuck = course.connections.join(patience).await;
        if stuck > 0 {
            course.cut.cancel();
            stuck = course.connections.join(CUT_GRACE).await;
        }
        Drained { finished: course.finished.load(SeqCst), cut: course.cut_off.load(SeqCst) + stuck }
    }
}

/// What a server and all its connections share about running and ending.
#[derive(Debug, Default)]
pub(super) struct Course {
    drains: AtomicBool,
    drain: CancellationToken,
    cut: CancellationToken,
    served: AtomicUsize,
    finished: AtomicUsize,
    cut_off: AtomicUsize,
    /// The accept loop and the connections: what a drain waits for.
    pub(super) connections: Tasks,
    /// What ends with or soon after the connections: streams of HTTP/2, replies to connections over the bound.
    pub(super) aside: Tasks,
}

impl Course {
    /// Resolves when the drain begins.
    pub(super) fn draining(&self) -> WaitForCancellationFutureOwned {
        self.drain.clone().cancelled_owned()
    }

    /// The orders to one connection.
    pub(super) fn orders(self: &Arc<Self>) -> Orders {
        // Children, so that connections on different threads do not meet at one lock.
        Orders {
            course: Arc::clone(self),
            listens: false,
            drain: Some(Box::pin(self.drain.child_token().cancelled_owned())),
            cut: Box::pin(self.cut.child_token().cancelled_owned()),
        }
    }

    /// Counts a connection until the guard goes.
    pub(super) fn serve_one(self: &Arc<Self>) -> Served {
        self.served.fetch_add(1, SeqCst);
        Served { course: Arc::clone(self), cut: false }
    }
}

/// A connection that is counted.
#[derive(Debug)]
pub(super) struct Served {
    course: Arc<Course>,
    cut: bool,
}

impl Served {
    /// How it ended matters to the drain's report.
    pub(super) fn ended(&mut self, end: &End) {
        self.cut = matches!(end, End::Cut);
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.course.served.fetch_sub(1, SeqCst);
        if self.course.drain.is_cancelled() {
            let count = if self.cut { &self.course.cut_off } else { &self.course.finished };
            count.fetch_add(1, SeqCst);
        }
    }
}

/// What one connection is told to do.
pub(super) struct Orders {
    course: Arc<Course>,
    listens: bool,
    drain: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Orders {
    /// Whether the order to finish has just come. True once. Must always be asked by the same task: once that listens,
    /// a flag is looked at, since the order itself is behind locks and each request would take several.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>) -> bool {
        if self.listens && !self.course.drains.load(SeqCst) {
            return false;
        }
        self.listens = true;
        let ordered = self.drain.as_mut().is_some_and(|drain| drain.as_mut().poll(cx).is_ready());
        if ordered {
            self.drain = None;
        }
        ordered
    }

    /// Whether the order to stop has come. It never comes before the order to finish, so until then nothing is asked.
    pub(super) fn poll_cut(&mut self, cx: &mut Context<'_>) -> bool {
        self.drain.is_none() && self.cut.as_mut().poll(cx).is_ready()
    }
}
