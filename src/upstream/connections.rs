//! Connections to the upstream, and the requests that pass through over them.

use std::error::Error;
use std::iter;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::header::UPGRADE;
use http::{Method, Request, Response, StatusCode, Uri};
use hyper_util::client::legacy;
use tokio::time::Instant;

use super::body::{BodyStalled, ClientBody, UpstreamBody};
use super::http2::StreamEnd;
use super::interim;
use super::pool::{ConnectionPool, KeepLimits, PoolClient, unpooled};
use super::send_error::SendError;
use crate::process::connector::{ConnectionUse, TimedConnector};
use crate::process::errors::root_cause_of;

/// Idle timeout of connections for pass-through requests. Common servers close theirs after 5 s. This timeout is
/// shorter, because such a request cannot always be repeated.
const PASSING_IDLE: Duration = Duration::from_secs(4);

/// Bytes of an answer that may arrive over HTTP/2 before they are read. Answers to calls are read at once, and the window
/// bounds their speed: 1 MiB is 10 MiB/s over a path of 100 ms.
const CALL_WINDOW: u32 = 1 << 20;
/// A caller may read its answer slowly, so this is what a connection with HTTP/1.1 reads ahead.
const PASSING_WINDOW: u32 = 256 << 10;

/// Time for which no kept connection is used after one of them was dead: a server that closed one may have closed all.
const SUSPICION: Duration = Duration::from_secs(5);

/// A request that could not be forwarded.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// No connection could be opened.
    #[error("vecho could not reach the upstream {upstream}: {cause}")]
    Unreachable {
        /// Its scheme, host and port.
        upstream: String,
        /// The error of the connection.
        cause: String,
    },
    /// The connection ended before an answer began, or the answer cannot be read.
    #[error("vecho got no answer from the upstream {upstream}: {cause}")]
    Unanswered {
        /// Its scheme, host and port.
        upstream: String,
        /// The error of the connection.
        cause: String,
    },
    /// The upstream switched protocols although the request did not ask for it.
    #[error("vecho cannot use the answer of the upstream {upstream}: an unrequested switch of protocols (status 101)")]
    UnaskedSwitch {
        /// Its scheme, host and port.
        upstream: String,
    },
    /// Its answer did not begin in time.
    #[error("vecho got no answer from the upstream within limits.request_timeout")]
    Late,
    /// The request body failed on the client's side.
    #[error("vecho could not pass the request to the upstream: the request body ended early")]
    RequestBody,
    /// The client sent no more of the body in time.
    #[error(
        "vecho could not pass the request to the upstream: no more of the request body arrived within \
         limits.body_timeout"
    )]
    RequestStalled,
    /// The request body is larger than what may be collected in memory.
    #[error("vecho could not pass the request to the upstream: the body is larger than {max_bytes} bytes")]
    TooLarge {
        /// The limit.
        max_bytes: usize,
    },
}

/// Limits of kept connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionLimits {
    /// Maximum number of embeddings calls in flight.
    pub max_concurrent: usize,
    /// Idle timeout of connections for embeddings calls.
    pub idle_timeout: Duration,
    /// Age up to which a connection takes new requests.
    pub max_age: Duration,
    /// True if HTTP/2 is offered to the upstream.
    pub http2: bool,
}

/// Connections to the upstream. Embeddings calls and pass-through requests share none, so bytes that arrive late for
/// one are never read as an answer to the other.
pub(super) struct Connections {
    calls: ConnectionPool,
    passing: ConnectionPool,
    unpooled: PoolClient,
    /// Opens a connection for each WebSocket.
    websockets: PoolClient,
    connector: TimedConnector,
    /// True if the last request over a kept connection was answered, false if none was or the connection was dead.
    keeps_open: AtomicBool,
    /// Time at which a kept connection was last found dead.
    dead_at: Mutex<Option<Instant>>,
}

impl Connections {
    pub(super) fn new(connector: &TimedConnector, limits: ConnectionLimits) -> Self {
        let ConnectionLimits { max_concurrent, idle_timeout, max_age, http2 } = limits;
        let stream_window = http2.then_some(CALL_WINDOW);
        let calls = KeepLimits { max_idle: max_concurrent.max(32), idle_timeout, max_age, stream_window };
        let stream_window = http2.then_some(PASSING_WINDOW);
        let passing = KeepLimits { idle_timeout: idle_timeout.min(PASSING_IDLE), stream_window, ..calls };
        Self {
            calls: ConnectionPool::new(connector.clone(), calls),
            passing: ConnectionPool::new(connector.clone(), passing),
            unpooled: unpooled(connector.clone()),
            websockets: unpooled(connector.for_websockets()),
            connector: connector.clone(),
            // Until an answer on a kept connection, requests that cannot be repeated open new ones.
            keeps_open: AtomicBool::new(false),
            dead_at: Mutex::new(None),
        }
    }

    /// Sends an embeddings call. After a failure on a kept connection the next calls open new ones.
    pub(super) async fn call(&self, request: Request<ClientBody>) -> Result<Response<UpstreamBody>, SendError> {
        let client = if self.is_suspicious() { self.unpooled.clone() } else { self.calls.client() };
        let result = self.send(&client, request).await;
        self.note(&result);
        result
    }

    /// Sends a request, with the credentials of a proxy that forwards it.
    async fn send(
        &self,
        client: &PoolClient,
        mut request: Request<ClientBody>,
    ) -> Result<Response<UpstreamBody>, SendError> {
        let uri = request.uri().clone();
        self.connector.authorize(&uri, request.headers_mut());
        let response = send(client, request).await?;
        match self.connector.proxy_refusal(&uri, response.status()) {
            Some(error) => Err(error.into()),
            None => Ok(response),
        }
    }

    /// Sends a request that passes through.
    ///
    /// A request that is safe to repeat is repeated once, on a new connection, if a kept connection was dead. Any other
    /// request uses kept connections only while the upstream is known to answer on them.
    pub(super) async fn forward(&self, request: Request<ClientBody>) -> Result<Response<UpstreamBody>, ForwardError> {
        // Read now, because `send` takes the request.
        let (uri, switches) = (request.uri().clone(), request.headers().contains_key(UPGRADE));
        let copy = repeatable_copy(&request);
        // A dead connection costs a repeatable request one repetition, and any other request a failure.
        let may_reuse = if copy.is_some() { !self.is_suspicious() } else { self.keeps_open.load(Ordering::Relaxed) };
        let client = match (switches, may_reuse) {
            (true, _) => self.websockets.clone(),
            (false, true) => self.passing.client(),
            (false, false) => self.unpooled.clone(),
        };
        let mut result = self.send(&client, request).await;
        if self.note(&result)
            && let Some(copy) = copy
        {
            tracing::debug!("a kept connection to the upstream was dead; repeating the request on a new one");
            // A dead connection with HTTP/2 has left the pool, and so have all older ones.
            let is_stream = matches!(result, Err(SendError::Stream(_)));
            let client = if is_stream { self.passing.client() } else { self.unpooled.clone() };
            result = self.send(&client, copy).await;
            self.note(&result);
        }
        let response = result.map_err(|error| open_error(&error, &uri))?;
        // A server must not switch to a protocol that the request did not name (RFC 9110, section 7.8).
        if response.status() == StatusCode::SWITCHING_PROTOCOLS && !switches {
            return Err(ForwardError::UnaskedSwitch { upstream: origin_of(&uri) });
        }
        Ok(response)
    }

    /// Returns true if a kept connection was dead a moment ago.
    fn is_suspicious(&self) -> bool {
        let dead_at = self.dead_at.lock().unwrap_or_else(PoisonError::into_inner);
        dead_at.is_some_and(|at| at.elapsed() < SUSPICION)
    }

    /// Learns from a result about kept connections. Returns true if one ended before any byte of an answer.
    fn note(&self, result: &Result<Response<UpstreamBody>, SendError>) -> bool {
        match result {
            Ok(response) => {
                // The first answer on a connection does not show that the server keeps it open.
                if ConnectionUse::find(response.extensions()).is_some_and(ConnectionUse::record_response) {
                    self.keeps_open.store(true, Ordering::Relaxed);
                }
                false
            }
            // The answers show that the connection was alive.
            Err(SendError::InterimFlood | SendError::Proxy(_) | SendError::Connect(_)) => false,
            // All older connections with HTTP/2 have left the pool with it, so none has to be suspected.
            Err(SendError::Stream(error)) => matches!(error.end, StreamEnd::Connection { had_answered: true, .. }),
            Err(SendError::Client(error)) => {
                let usage = error.connect_info().and_then(ConnectionUse::of_connection);
                let was_dead = usage.is_some_and(|usage| usage.died_unanswered());
                if was_dead {
                    self.keeps_open.store(false, Ordering::Relaxed);
                    *self.dead_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                }
                was_dead
            }
        }
    }
}

/// Sends a request over HTTP/2 if its origin chooses that, otherwise over HTTP/1.1.
async fn send(client: &PoolClient, mut request: Request<ClientBody>) -> Result<Response<UpstreamBody>, SendError> {
    if let Some(streams) = client.streams.as_ref().filter(|streams| streams.may_send(&request)) {
        match Box::pin(streams.send(request)).await? {
            Ok(response) => return Ok(response),
            Err(returned) => request = returned,
        }
    }
    Ok(interim::send(&client.http1, request).await?.map(UpstreamBody::plain))
}

/// Returns a copy of a request that may be sent twice (RFC 9110, section 9.2.2): its method is idempotent, or it asks
/// for embeddings, and its body is in memory.
fn repeatable_copy(request: &Request<ClientBody>) -> Option<Request<ClientBody>> {
    let bytes = request.body().bytes()?;
    // Embedding changes no state at the service, so its POST is safe to repeat.
    let asks_for_embeddings = || request.uri().path().trim_end_matches('/').ends_with("/embeddings");
    let may_repeat = request.method().is_idempotent() || (*request.method() == Method::POST && asks_for_embeddings());
    may_repeat.then(|| {
        let mut copy = Request::new(ClientBody::whole(bytes.clone()));
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.headers_mut() = request.headers().clone();
        copy
    })
}

/// Returns the scheme, host and port of an address.
fn origin_of(uri: &Uri) -> String {
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    format!("{}://{authority}", uri.scheme_str().unwrap_or("http"))
}

fn open_error(error: &SendError, uri: &Uri) -> ForwardError {
    let upstream = origin_of(uri);
    let error: &legacy::Error = match error {
        SendError::Client(error) => error,
        SendError::Proxy(error) => return ForwardError::Unreachable { upstream, cause: error.to_string() },
        SendError::Connect(error) => return ForwardError::Unreachable { upstream, cause: root_cause_of(&**error) },
        SendError::Stream(error) => return ForwardError::Unanswered { upstream, cause: root_cause_of(error) },
        flood @ SendError::InterimFlood => return ForwardError::Unanswered { upstream, cause: flood.to_string() },
    };
    // hyper reports a failed request body as an error of its user.
    let from_body =
        error.source().and_then(|source| source.downcast_ref::<hyper::Error>()).is_some_and(hyper::Error::is_user);
    if from_body {
        return body_error(error);
    }
    let cause = root_cause_of(error);
    if error.is_connect() {
        ForwardError::Unreachable { upstream, cause }
    } else {
        ForwardError::Unanswered { upstream, cause }
    }
}

/// Returns why the request body failed: its client stalled, or disconnected.
pub(super) fn body_error(error: &(dyn Error + 'static)) -> ForwardError {
    let mut causes = iter::successors(Some(error), |error| (**error).source());
    if causes.any(<dyn Error>::is::<BodyStalled>) { ForwardError::RequestStalled } else { ForwardError::RequestBody }
}
