//! One HTTP/2 connection to the upstream: its streams, its limit of them, and its end.

use std::error::Error;
use std::future::{Future, pending, poll_fn};
use std::iter;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use http::Request;
use http::Response;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::rt::Executor;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::body::ClientBody;
use crate::process::connector::{ConnectionUse, KEEPALIVE, OpenConnection};

/// Maximum number of streams of one connection, whatever its server permits. A connection that ends takes no more calls
/// with it.
pub(super) const MAX_STREAMS: u16 = 100;

/// Time for the answer to a ping before the connection counts as dead. A server that computes in the thread of its
/// sockets answers late.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Settings of connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamLimits {
    /// Bytes of an answer that may arrive before they are read.
    pub stream_window: u32,
    /// Maximum size of the head of an answer.
    pub max_head_bytes: u32,
    /// Idle timeout of a connection.
    pub idle_timeout: Duration,
}

type Driver = http2::Connection<OpenConnection, ClientBody, Observed>;

/// An HTTP/2 connection. Used by `Arc`.
pub(super) struct Http2Connection {
    sender: http2::SendRequest<ClientBody>,
    /// `None` once the connection has ended.
    driver: Arc<Mutex<Option<Driver>>>,
    usage: ConnectionUse,
    count: Mutex<StreamCount>,
}

/// Streams of a connection.
struct StreamCount {
    open: usize,
    idle_since: Instant,
    /// True if the connection takes no new streams.
    is_retired: bool,
}

/// A request that got no answer.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub(super) struct StreamError {
    source: hyper::Error,
    pub(super) end: StreamEnd,
}

/// End of a stream without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamEnd {
    /// The server has not processed the request (RFC 9113, sections 6.8 and 8.7).
    Unprocessed,
    /// The server reset the stream. The connection lives on.
    Reset,
    /// The connection ended.
    Connection {
        /// True if it had answered before.
        had_answered: bool,
        /// True if no earlier request has shown its end.
        is_first: bool,
    },
}

impl Http2Connection {
    /// Begins HTTP/2 on a connection with one open stream, and waits for the settings of the server.
    pub(super) async fn begin(connection: OpenConnection, limits: StreamLimits) -> Result<Arc<Self>, hyper::Error> {
        let usage = connection.inner().usage().clone();
        let progress = Arc::<Notify>::default();
        let executor = Observed(Arc::clone(&progress));
        let (sender, driver) = http2::Builder::new(executor.clone())
            .timer(TokioTimer::new())
            // Without an open stream, the idle timeout ends the connection.
            .keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(PING_TIMEOUT)
            .initial_stream_window_size(limits.stream_window)
            // All streams together cannot fill this window, so one that is read slowly never stalls the others.
            .initial_connection_window_size(limits.stream_window.saturating_mul(MAX_STREAMS.into()))
            .max_header_list_size(limits.max_head_bytes)
            // Marks the settings of the server as unknown, see `settings`.
            .initial_max_send_streams(0)
            .handshake(connection)
            .await?;
        let driver = Arc::new(Mutex::new(Some(driver)));
        // The stream is open from the start, so the idle timeout does not run while the settings are awaited.
        let count = Mutex::new(StreamCount { open: 1, idle_since: Instant::now(), is_retired: false });
        let connection = Arc::new(Self { sender, driver: Arc::clone(&driver), usage, count });
        executor.execute(drive(driver, Arc::downgrade(&connection), limits.idle_timeout));
        connection.settings(&progress).await;
        Ok(connection)
    }

    /// Waits until the server has told its limit of streams, or the connection has ended.
    async fn settings(&self, progress: &Notify) {
        loop {
            let mut advanced = pin!(progress.notified());
            // Registered before the check, so progress in between is not missed.
            advanced.as_mut().enable();
            if self.limit() > 0 || self.has_ended() {
                return;
            }
            advanced.await;
        }
    }

    /// Opens a stream if the server permits one more.
    pub(super) fn try_open(&self) -> bool {
        let limit = self.limit();
        let mut count = lock(&self.count);
        let is_free = !count.is_retired && !self.has_ended() && count.open < limit;
        count.open += usize::from(is_free);
        is_free
    }

    /// Ends an open stream.
    pub(super) fn close_stream(&self) {
        let mut count = lock(&self.count);
        count.open -= 1;
        count.idle_since = Instant::now();
    }

    /// Returns the number of streams that the server permits, or zero if its settings have not arrived.
    pub(super) fn limit(&self) -> usize {
        lock(&self.driver).as_ref().map_or(0, |driver| driver.current_max_send_streams().min(MAX_STREAMS.into()))
    }

    /// Lets the connection end with its open streams. Returns false if it was retired before.
    pub(super) fn retire(&self) -> bool {
        !mem::replace(&mut lock(&self.count).is_retired, true)
    }

    /// Returns true if the connection may take new streams, now or later.
    pub(super) fn is_usable(&self) -> bool {
        !lock(&self.count).is_retired && !self.has_ended()
    }

    fn has_ended(&self) -> bool {
        self.sender.is_closed() || lock(&self.driver).is_none()
    }

    /// Returns the time until the connection may have been idle for `timeout`. Retires it and returns `None` if it has.
    fn idle_left(&self, timeout: Duration) -> Option<Duration> {
        let mut count = lock(&self.count);
        if count.open > 0 {
            return Some(timeout);
        }
        let left = timeout.saturating_sub(count.idle_since.elapsed());
        count.is_retired |= left.is_zero();
        (!left.is_zero()).then_some(left)
    }

    /// Sends a request on an open stream. The error contains the request if it was not sent.
    pub(super) async fn send(
        &self,
        request: Request<ClientBody>,
    ) -> Result<Response<Incoming>, (StreamError, Option<Request<ClientBody>>)> {
        match self.sender.clone().try_send_request(request).await {
            Ok(mut response) => {
                response.extensions_mut().insert(self.usage.clone());
                Ok(response)
            }
            Err(mut error) => {
                let unsent = error.take_message();
                let source = error.into_error();
                let of_stream = stream_fault(&source);
                // A connection that is ending may still seem open.
                let end = if unsent.is_some() || of_stream.is_some_and(is_unprocessed) {
                    self.retire();
                    StreamEnd::Unprocessed
                } else if of_stream.is_some_and(h2::Error::is_reset) {
                    StreamEnd::Reset
                } else {
                    StreamEnd::Connection { had_answered: self.usage.has_answered(), is_first: self.retire() }
                };
                Err((StreamError { source, end }, unsent))
            }
        }
    }
}

/// Returns the error of the protocol in the chain of causes.
fn stream_fault(error: &hyper::Error) -> Option<&h2::Error> {
    iter::successors(error.source(), |cause| (*cause).source()).find_map(|cause| cause.downcast_ref())
}

/// Returns true if the server has not processed the request of a stream: it refused the stream, or the stream began after
/// the last one that it announced to process.
fn is_unprocessed(error: &h2::Error) -> bool {
    let was_refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    error.is_remote() && (was_refused || error.is_go_away())
}

/// Drives a connection until it ends or has been idle for `idle_timeout`.
async fn drive(driver: Arc<Mutex<Option<Driver>>>, connection: Weak<Http2Connection>, idle_timeout: Duration) {
    let driving = poll_fn(|context| match &mut *lock(&driver) {
        Some(driver) => Pin::new(driver).poll(context).map(Result::err),
        None => std::task::Poll::Ready(None),
    });
    let idling = async {
        while let Some(connection) = connection.upgrade() {
            let left = connection.idle_left(idle_timeout);
            drop(connection);
            let Some(left) = left else { return };
            sleep(left).await;
        }
        // The connection ends by itself, because nothing can send on it.
        pending::<()>().await;
    };
    tokio::select! {
        error = driving => {
            tracing::debug!(error = error.map(tracing::field::display), "an HTTP/2 connection to the upstream ended");
        }
        () = idling => {}
    }
    // Dropped after the lock is released, because its end wakes tasks.
    let ended = lock(&driver).take();
    drop(ended);
}

/// Executor that notifies of each step of a connection.
#[derive(Clone)]
struct Observed(Arc<Notify>);

impl<F> Executor<F> for Observed
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        let progress = Arc::clone(&self.0);
        TokioExecutor::new().execute(async move {
            let mut task = pin!(task);
            poll_fn(|context| {
                let polled = task.as_mut().poll(context);
                progress.notify_waiters();
                polled
            })
            .await;
            progress.notify_waiters();
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
