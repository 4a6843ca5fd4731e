//! One connection, from the handshake to its close.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{Either, ready};
use http::Request;
use http_body::Body;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::server::TlsStream;

use super::drain::ServerState;
use super::driver::{ConnectionDriver, HttpConnection};
use super::end::ConnectionEnd;
use super::handler::{Handler, Peer};
use super::head::{check_head, check_lengths};
use super::limits::{ConnectionHooks, PeerFault, ServeLimits};
use super::reply;
use super::stats::{ConnectionStats, CountedBody};
use super::stream::ObservedStream;
use super::tls::{self, Tls};
use crate::process::errors::BoxError;
use crate::process::tasks::Tasks;
use crate::process::workers::Assignment;

/// Limit on response bytes that are buffered because the client does not read them. hyper's default is about 400 KiB,
/// and many clients may be slow. At 128 KiB an answer with 256 vectors costs a sixth more CPU time.
pub const UNSENT_BYTES: usize = 256 * 1024;

/// Limit on the concurrent streams of one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;
/// Interval of keepalive pings to an HTTP/2 peer, and the timeout of its answer.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Limits on the bytes and the time of reading after the last response. Closing a socket with unread bytes resets the
/// connection, and a peer that is still sending might lose the response.
const LINGER_BYTES: usize = 64 * 1024 * 1024;
const LINGER: Duration = Duration::from_secs(2);

/// State shared by all connections of a server.
pub(super) struct Shared<H> {
    pub(super) handler: H,
    pub(super) tls: Option<Tls>,
    pub(super) limits: ServeLimits,
    pub(super) hooks: Arc<dyn ConnectionHooks>,
    pub(super) state: Arc<ServerState>,
}

/// Permit of an open socket, one of `max_connections`. Released when the socket is dropped.
pub(super) struct ConnectionPermit {
    _permit: OwnedSemaphorePermit,
    /// An upgraded connection keeps its place too.
    _assignment: Assignment,
    hooks: Arc<dyn ConnectionHooks>,
}

impl ConnectionPermit {
    pub(super) fn new(permit: OwnedSemaphorePermit, assignment: Assignment, hooks: Arc<dyn ConnectionHooks>) -> Self {
        hooks.opened();
        Self { _permit: permit, _assignment: assignment, hooks }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.hooks.closed();
    }
}

/// Serves one connection until it ends.
pub(super) async fn serve<H: Handler>(shared: Arc<Shared<H>>, tcp: TcpStream, peer: Peer, slot: ConnectionPermit) {
    // The guard counts the connection from here on, so the result of a drain includes handshakes.
    let mut served = shared.state.serve_one();
    if let Some(end) = survive(serve_secured(&shared, tcp, peer, slot)).await {
        served.ended(&end);
        report(&*shared.hooks, peer, end);
    }
}

async fn serve_secured<H: Handler>(
    shared: &Arc<Shared<H>>,
    tcp: TcpStream,
    peer: Peer,
    slot: ConnectionPermit,
) -> ConnectionEnd {
    // Each variant is boxed by itself, so a plain connection does not take the memory of an encrypted one.
    let Some(tls) = &shared.tls else {
        return Box::pin(serve_http1(shared, tcp, peer, slot)).await;
    };
    match Box::pin(handshake(shared, tls, tcp)).await {
        Ok(stream) if tls::chose_http2(&stream) => Box::pin(serve_http2(shared, stream, peer, slot)).await,
        Ok(stream) => Box::pin(serve_http1(shared, stream, peer, slot)).await,
        Err(end) => end,
    }
}

async fn handshake<H>(shared: &Shared<H>, tls: &Tls, tcp: TcpStream) -> Result<TlsStream<TcpStream>, ConnectionEnd> {
    let handshake = tokio::time::timeout(shared.limits.header_timeout, tls.accept(tcp));
    tokio::select! {
        // No request has begun, so a drain ends the handshake at once.
        () = shared.state.draining() => Err(ConnectionEnd::Finished(Ok(()))),
        shaken = handshake => match shaken {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(_)) | Err(_) => Err(ConnectionEnd::Faulted(PeerFault::TlsHandshake)),
        }
    }
}

async fn serve_http1<H, S>(shared: &Arc<Shared<H>>, stream: S, peer: Peer, slot: ConnectionPermit) -> ConnectionEnd
where
    H: Handler,
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let stats = ConnectionStats::new(true);
    let io = TokioIo::new(ObservedStream::new(stream, Arc::clone(&stats), slot));
    let service = service_fn(|request| answer(shared, &stats, peer, request));
    let mut connection = http1_builder(&shared.limits).serve_connection(io, service).with_upgrades();
    let driver = ConnectionDriver::new(Arc::clone(&stats), &shared.limits, shared.state.shutdown_signal());
    let end = driver.run(Pin::new(&mut connection)).await;
    // After an upgrade there are no parts, since the socket belongs to the upgrade. Faulty and cut connections close
    // at once.
    if let (ConnectionEnd::Finished(_), Some(parts)) = (&end, connection.into_parts()) {
        linger(parts.io.into_inner(), stats.had_bare_reply()).await;
    }
    end
}

fn http1_builder(limits: &ServeLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // hyper's own timeout also runs while a kept connection is idle; the watch distinguishes the two cases. hyper's
    // limit of 100 headers stays as it is: any other number costs an allocation for each request.
    builder.timer(TokioTimer::new()).header_read_timeout(None).max_header_size(limits.max_header_bytes);
    // hyper has one limit for a head that it reads and for the responses that it buffers.
    builder.max_buf_size(limits.max_header_bytes.max(UNSENT_BYTES));
    builder
}

async fn serve_http2<H, S>(shared: &Arc<Shared<H>>, stream: S, peer: Peer, slot: ConnectionPermit) -> ConnectionEnd
where
    H: Handler,
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let stats = ConnectionStats::new(false);
    let io = TokioIo::new(ObservedStream::new(stream, Arc::clone(&stats), slot));
    let service = service_fn(|request| answer(shared, &stats, peer, request));
    let executor = StreamTasks(shared.state.aside.clone());
    let connection = pin!(http2_builder(executor, &shared.limits).serve_connection(io, service));
    ConnectionDriver::new(Arc::clone(&stats), &shared.limits, shared.state.shutdown_signal()).run(connection).await
}

fn http2_builder(executor: StreamTasks, limits: &ServeLimits) -> http2::Builder<StreamTasks> {
    let mut builder = http2::Builder::new(executor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_send_buf_size(UNSENT_BYTES)
        // The configuration allows at most 16 MiB, so the conversion does not fail.
        .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// Calls the handler once. The call stays in flight until the body of its response is sent.
fn answer<H: Handler>(
    shared: &Arc<Shared<H>>,
    stats: &Arc<ConnectionStats>,
    peer: Peer,
    request: Request<Incoming>,
) -> impl Future<Output = Result<http::Response<CountedBody<AnswerBody<H>>>, Infallible>> + Send + use<H> {
    // The call begins before the checks, so an error response is in flight, too, until it is sent.
    let call = stats.begin_call();
    // Combinators instead of an async block: a block would store the handler's future twice, and hyper copies all of
    // it.
    let has_two_lengths = stats.take_two_lengths();
    let answered = match check_head(&request).and_then(|()| check_lengths(&request, has_two_lengths)) {
        Ok(()) => {
            let answered = shared.handler.call(request, peer);
            Either::Left(answered.map(|response| response.map(http_body_util::Either::Left)))
        }
        // Only the response is an error. hyper closes the connection on HTTP/1.1, because of the `Connection`
        // header.
        Err(bad) => {
            fault(&*shared.hooks, peer, PeerFault::BadHead);
            let response = reply::bad_head(bad, request.version());
            Either::Right(ready(response.map(http_body_util::Either::Right)))
        }
    };
    answered.map(|response| Ok(response.map(|body| CountedBody::new(body, call))))
}

/// Body of the handler's response or of an error response.
type AnswerBody<H> = http_body_util::Either<<H as Handler>::Body, Full<Bytes>>;

/// Reads and discards what the peer still sends, so it can read the last response.
async fn linger<S: AsyncRead + Unpin>(mut io: S, was_refused: bool) {
    let mut scrap = vec![0_u8; 16 * 1024];
    let mut left = LINGER_BYTES;
    // Without a refusal, unread bytes show that the peer was still sending. If there are none, there is nothing to do.
    if !was_refused && !matches!(io.read(&mut scrap).now_or_never(), Some(Ok(1..))) {
        return;
    }
    let read_out = async {
        while let Ok(count @ 1..) = io.read(&mut scrap).await {
            left = left.saturating_sub(count);
            if left == 0 {
                break;
            }
        }
    };
    // A timeout ends the reading like any other cause.
    let _ = tokio::time::timeout(LINGER, read_out).await;
}

fn report(hooks: &dyn ConnectionHooks, peer: Peer, end: ConnectionEnd) {
    let fault = match end {
        ConnectionEnd::Faulted(fault) => fault,
        ConnectionEnd::Finished(Err(error)) if error.is_parse_too_large() => PeerFault::HeadTooLarge,
        ConnectionEnd::Finished(Err(error)) if error.is_parse() => PeerFault::UnreadableHead,
        // Most of these are disconnects of the peer, which are usual, so they are no faults.
        ConnectionEnd::Finished(Err(error)) => return tracing::debug!(peer = %peer.addr, %error, "connection broke"),
        ConnectionEnd::Finished(Ok(())) | ConnectionEnd::Cut => return,
    };
    self::fault(hooks, peer, fault);
}

fn fault(hooks: &dyn ConnectionHooks, peer: Peer, fault: PeerFault) {
    hooks.protocol_error(fault);
    tracing::debug!(peer = %peer.addr, fault = fault.label(), "connection closed because of a fault of its peer");
}

/// Runs `work`. A panic in it is logged and becomes `None`.
pub(super) async fn survive<T>(work: impl Future<Output = T>) -> Option<T> {
    let outcome = AssertUnwindSafe(work).catch_unwind().await;
    if outcome.is_err() {
        tracing::error!("a request handler panicked; its connection or stream was closed");
    }
    outcome.ok()
}

/// Executor that spawns the tasks of HTTP/2 streams.
#[derive(Clone)]
struct StreamTasks(Tasks);

impl<F> hyper::rt::Executor<F> for StreamTasks
where
    F: Future + Send + 'static,
{
    fn execute(&self, stream: F) {
        // A panic ends only this stream, and is logged.
        self.0.spawn(async move {
            survive(stream).await;
        });
    }
}

impl<I, B, S> HttpConnection for http1::UpgradeableConnection<I, S>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + 'static,
    S: HttpService<Incoming, ResBody = B, Error: Into<BoxError>>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I, B, S> HttpConnection for http2::Connection<I, S, StreamTasks>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    S: HttpService<Incoming, ResBody = B, Error: Into<BoxError>>,
    S::Future: Send + 'static,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}
