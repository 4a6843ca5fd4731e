//! HTTP/2 connections of one runtime. A request gets a stream of a connection that has one left, or a new connection.

use std::collections::HashMap;
use std::mem;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tower_service::Service as _;

use super::body::{ClientBody, UpstreamBody};
use super::http2::{Http2Connection, MAX_STREAMS, StreamEnd, StreamLimits};
use super::send_error::SendError;
use crate::process::connector::TimedConnector;

/// Attempts to send a request that servers do not process.
const MAX_ATTEMPTS: u32 = 3;

/// Time for which an origin that chose HTTP/1.1 is not offered HTTP/2 again.
const HTTP1_FOR: Duration = Duration::from_mins(10);

/// Maximum number of origins that are remembered. There is one, and the targets of its redirects.
const MAX_ORIGINS: usize = 64;

/// Origins that chose HTTP/1.1, with the time of their choice. Shared by all runtimes.
#[derive(Default)]
pub(super) struct Http1Origins(Mutex<HashMap<Authority, Instant>>);

impl Http1Origins {
    fn contains(&self, origin: &Authority) -> bool {
        lock(&self.0).get(origin).is_some_and(|at| at.elapsed() < HTTP1_FOR)
    }

    fn add(&self, origin: Authority) {
        let mut origins = lock(&self.0);
        if origins.len() >= MAX_ORIGINS {
            origins.clear();
        }
        origins.insert(origin, Instant::now());
    }
}

/// The HTTP/2 connections of one runtime.
pub(super) struct Multiplexer {
    /// Offers HTTP/2.
    connector: TimedConnector,
    limits: StreamLimits,
    http1: Arc<Http1Origins>,
    origins: Mutex<HashMap<Authority, Arc<OriginPool>>>,
}

/// The connections to one origin.
#[derive(Default)]
struct OriginPool {
    state: Mutex<OriginState>,
    /// Notified when a stream or the opening of a connection ends.
    changed: Notify,
}

#[derive(Default)]
struct OriginState {
    connections: Vec<Arc<Http2Connection>>,
    /// Connections that are being opened.
    opening: usize,
    /// Requests that wait for them.
    waiting: usize,
    /// Connections that could not be opened.
    failures: u64,
    /// Streams that the last connection permitted.
    streams: Option<usize>,
}

/// A stream, until the body of its answer has ended.
pub(super) struct StreamLease {
    connection: Arc<Http2Connection>,
    origin: Arc<OriginPool>,
}

/// Way of a request to its stream.
enum StreamStep {
    Use(StreamLease),
    Wait(Waiting),
    Open(Opening),
}

/// A request that waits for a connection.
struct Waiting(Arc<OriginPool>);

/// A connection that is being opened.
struct Opening {
    origin: Arc<OriginPool>,
    has_opened: bool,
}

impl Multiplexer {
    pub(super) fn new(connector: &TimedConnector, limits: StreamLimits, http1: Arc<Http1Origins>) -> Self {
        Self { connector: connector.offering_http2(), limits, http1, origins: Mutex::default() }
    }

    /// Returns true if a request may be sent over HTTP/2: its body can be sent again, and TLS selects the protocol.
    pub(super) fn may_send(&self, request: &Request<ClientBody>) -> bool {
        let uri = request.uri();
        let is_https = uri.scheme() == Some(&Scheme::HTTPS);
        is_https
            && request.body().bytes().is_some()
            && uri.authority().is_some_and(|origin| !self.http1.contains(origin))
    }

    /// Sends a request. Returns it if its origin chooses HTTP/1.1.
    pub(super) async fn send(
        &self,
        mut request: Request<ClientBody>,
    ) -> Result<Result<Response<UpstreamBody>, Request<ClientBody>>, SendError> {
        let Some(authority) = request.uri().authority().cloned() else { return Ok(Err(request)) };
        let mut attempt = 1;
        loop {
            let Some(lease) = self.stream(&authority, request.uri()).await? else { return Ok(Err(request)) };
            let copy = request.body().bytes().cloned().map(|bytes| {
                let mut copy = Request::new(ClientBody::whole(bytes));
                *copy.method_mut() = request.method().clone();
                *copy.uri_mut() = request.uri().clone();
                *copy.headers_mut() = request.headers().clone();
                copy
            });
            let (error, unsent) = match lease.connection.send(request).await {
                Ok(response) => return Ok(Ok(response.map(|body| UpstreamBody::of_stream(body, lease)))),
                Err(failed) => failed,
            };
            if matches!(error.end, StreamEnd::Connection { is_first: true, .. }) {
                lease.origin.retire_all();
            }
            match unsent.or(copy) {
                Some(again) if error.end == StreamEnd::Unprocessed && attempt < MAX_ATTEMPTS => {
                    tracing::debug!(%error, "the upstream did not process a request; sending it on another connection");
                    (request, attempt) = (again, attempt + 1);
                }
                _ => return Err(error.into()),
            }
        }
    }

    /// Returns a stream. Returns `None` if the origin chooses HTTP/1.1.
    async fn stream(&self, authority: &Authority, uri: &Uri) -> Result<Option<StreamLease>, SendError> {
        let origin = Arc::clone(lock(&self.origins).entry(authority.clone()).or_default());
        let mut known_failures = None;
        loop {
            let mut changed = pin!(origin.changed.notified());
            // Registered before the state is read, so a change in between is not missed.
            changed.as_mut().enable();
            if self.http1.contains(authority) {
                return Ok(None);
            }
            match origin.next_step(&mut known_failures) {
                StreamStep::Use(lease) => return Ok(Some(lease)),
                StreamStep::Open(opening) => return self.open(opening, authority, uri).await,
                StreamStep::Wait(_waiting) => changed.await,
            }
        }
    }

    /// Opens a connection and its first stream.
    async fn open(
        &self,
        mut opening: Opening,
        authority: &Authority,
        uri: &Uri,
    ) -> Result<Option<StreamLease>, SendError> {
        let connected = self.connector.clone().call(uri.clone()).await.map_err(SendError::Connect)?;
        if !connected.inner().chose_http2() {
            self.http1.add(authority.clone());
            opening.has_opened = true;
            return Ok(None);
        }
        let (limit, key) = self.connector.limit();
        let late = || SendError::Connect(format!("the HTTP/2 settings took longer than {key}").into());
        let begun =
            timeout(limit, Box::pin(Http2Connection::begin(connected, self.limits))).await.map_err(|_| late())?;
        let connection = begun.map_err(|error| SendError::Connect(error.into()))?;
        let ended = || SendError::Connect("the connection ended before the HTTP/2 settings".into());
        connection.is_usable().then_some(()).ok_or_else(ended)?;
        opening.has_opened = true;
        let origin = Arc::clone(&opening.origin);
        let mut state = lock(&origin.state);
        state.streams = Some(connection.limit());
        state.connections.push(Arc::clone(&connection));
        drop(state);
        Ok(Some(StreamLease { connection, origin }))
    }
}

impl OriginPool {
    /// Lets all connections end with their open streams. The end of one may have ended the others as well, and silent
    /// ones notice that much later. So a request is repeated on a new connection.
    fn retire_all(&self) {
        let all = mem::take(&mut lock(&self.state).connections);
        for connection in all {
            connection.retire();
        }
    }

    /// Returns the next step of a request that needs a stream. `known_failures` is the number of failures at its first
    /// step.
    fn next_step(self: &Arc<Self>, known_failures: &mut Option<u64>) -> StreamStep {
        let mut state = lock(&self.state);
        state.connections.retain(|connection| connection.is_usable());
        if let Some(connection) = state.connections.iter().find(|connection| connection.try_open()) {
            return StreamStep::Use(StreamLease { connection: Arc::clone(connection), origin: Arc::clone(self) });
        }
        let known = *known_failures.get_or_insert(state.failures);
        // A request waits for a connection that is being opened if a stream is likely to be left for it. After a failure
        // it waits no longer, so requests do not try one after the other.
        let expected = state.opening * state.streams.unwrap_or(MAX_STREAMS.into());
        // Each opening request takes one stream itself.
        if known == state.failures && state.waiting + state.opening < expected {
            state.waiting += 1;
            return StreamStep::Wait(Waiting(Arc::clone(self)));
        }
        state.opening += 1;
        StreamStep::Open(Opening { origin: Arc::clone(self), has_opened: false })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        lock(&self.0.state).waiting -= 1;
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        let mut state = lock(&self.origin.state);
        state.opening -= 1;
        state.failures += u64::from(!self.has_opened);
        drop(state);
        self.origin.changed.notify_waiters();
    }
}

impl Drop for StreamLease {
    fn drop(&mut self) {
        self.connection.close_stream();
        self.origin.changed.notify_waiters();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
