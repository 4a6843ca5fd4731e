//! Kept connections to the upstream. None is used beyond its maximum age.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::runtime::{self, Handle};
use tokio::time::Instant;

use super::body::ClientBody;
use super::http2::StreamLimits;
use super::multiplexer::{Http1Origins, Multiplexer};
use crate::process::connector::TimedConnector;

/// HTTP client with connections that may be kept.
pub(super) type HttpClient = legacy::Client<TimedConnector, ClientBody>;

/// Maximum number of headers in an answer.
const MAX_ANSWER_HEADERS: usize = 512;

/// Connections that a request may use.
#[derive(Clone)]
pub(super) struct PoolClient {
    pub http1: HttpClient,
    /// Connections with HTTP/2, if it is offered.
    pub streams: Option<Arc<Multiplexer>>,
}

/// Limits of kept connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeepLimits {
    /// Maximum number of unused connections.
    pub max_idle: usize,
    /// Idle timeout of an unused connection.
    pub idle_timeout: Duration,
    /// Age up to which a connection takes new requests.
    pub max_age: Duration,
    /// Window of a stream if HTTP/2 is offered.
    pub stream_window: Option<u32>,
}

/// Bytes that a connection reads ahead, which is also the largest head of an answer. Each connection
/// holds such a buffer.
const MAX_BUFFER_BYTES: usize = 256 * 1024;

/// Connection pool. All connections of a runtime are replaced together when the oldest may have reached the maximum
/// age, so names are resolved again. Requests under way end on the connection that they began on.
///
/// Each runtime has connections of its own. The runtime that opens a connection reads from it, so a request of another
/// runtime would have to wake that thread and be woken by it.
pub(super) struct ConnectionPool {
    connector: TimedConnector,
    limits: KeepLimits,
    http1_origins: Arc<Http1Origins>,
    /// One for each worker that has sent a request.
    clients: Mutex<Vec<RuntimeClient>>,
}

/// The connections of one runtime, and the earliest time at which one of them may have been opened.
struct RuntimeClient {
    runtime: runtime::Id,
    client: PoolClient,
    since: Instant,
}

impl RuntimeClient {
    fn new(runtime: runtime::Id, pool: &ConnectionPool) -> Self {
        let ConnectionPool { connector, limits, http1_origins, .. } = pool;
        let streams = limits.stream_window.map(|stream_window| {
            let max_head_bytes = u32::try_from(MAX_BUFFER_BYTES).unwrap_or(u32::MAX);
            let limits = StreamLimits { stream_window, max_head_bytes, idle_timeout: limits.idle_timeout };
            Arc::new(Multiplexer::new(connector, limits, Arc::clone(http1_origins)))
        });
        let http1 = tolerant_builder()
            // Without a timer, hyper-util removes expired connections only when it looks for one to use.
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(limits.idle_timeout)
            .pool_max_idle_per_host(limits.max_idle)
            .build(connector.clone());
        Self { runtime, client: PoolClient { http1, streams }, since: Instant::now() }
    }
}

impl ConnectionPool {
    pub(super) fn new(connector: TimedConnector, limits: KeepLimits) -> Self {
        Self { connector, limits, http1_origins: Arc::default(), clients: Mutex::default() }
    }

    /// Returns the client of the current runtime. Its connections are younger than the maximum age.
    pub(super) fn client(&self) -> PoolClient {
        let runtime = Handle::current().id();
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let known = clients.iter_mut().find(|client| client.runtime == runtime);
        if let Some(current) = known {
            if current.since.elapsed() >= self.limits.max_age {
                *current = RuntimeClient::new(runtime, self);
            }
            return current.client.clone();
        }
        let first = RuntimeClient::new(runtime, self);
        let client = first.client.clone();
        clients.push(first);
        client
    }
}

/// Returns a client that opens a connection for each request and keeps none.
pub(super) fn unpooled(connector: TimedConnector) -> PoolClient {
    PoolClient { http1: tolerant_builder().pool_max_idle_per_host(0).build(connector), streams: None }
}

/// Returns a builder of clients that read odd answers as other clients do.
fn tolerant_builder() -> legacy::Builder {
    let mut builder = legacy::Client::builder(TokioExecutor::new());
    builder
        .http1_max_buf_size(MAX_BUFFER_BYTES)
        .http1_max_headers(MAX_ANSWER_HEADERS)
        .http1_allow_obsolete_multiline_headers_in_responses(true)
        .http1_ignore_invalid_headers_in_responses(true);
    builder
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};

    use bytes::Bytes;
    use http::Request;
    use http_body_util::BodyExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::process::connector::{Connecting, ProxyRules, Resolver};

    /// Answers every request on a connection with one letter.
    async fn answer(mut stream: TcpStream, letter: char) {
        let mut seen = Vec::new();
        while stream.read_buf(&mut seen).await.is_ok_and(|bytes| bytes > 0) {
            if seen.ends_with(b"\r\n\r\n") {
                seen.clear();
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{letter}");
                stream.write_all(answer.as_bytes()).await.expect("the client reads");
            }
        }
    }

    /// Starts a server at a loopback address that answers with one letter.
    async fn serve(address: impl Into<SocketAddr>, letter: char) -> SocketAddr {
        let listener = TcpListener::bind(address.into()).await.expect("a loopback address");
        let address = listener.local_addr().expect("it is bound");
        crate::process::tasks::Tasks::new().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                crate::process::tasks::Tasks::new().spawn(answer(stream, letter));
            }
        });
        address
    }

    async fn ask(client: &PoolClient, port: u16) -> Bytes {
        let request = Request::get(format!("http://upstream.test:{port}/")).body(ClientBody::empty());
        let response = client.http1.request(request.expect("a legal request")).await.expect("an answer");
        response.into_body().collect().await.expect("a whole answer").to_bytes()
    }

    fn pool(resolver: Resolver, max_age: Duration) -> ConnectionPool {
        let limit = Duration::from_secs(5);
        let proxies = &ProxyRules::default();
        let connecting =
            Connecting { limit, limit_key: "limit", ca_file: None, ca_key: "none", proxies, identity: None };
        let connector = TimedConnector::with_resolver(connecting, resolver).expect("no file is read");
        ConnectionPool::new(
            connector,
            KeepLimits { max_idle: 8, idle_timeout: Duration::from_mins(1), max_age, stream_window: None },
        )
    }

    #[tokio::test]
    async fn a_changed_address_is_used_although_the_old_one_still_answers() {
        let old = serve((Ipv4Addr::LOCALHOST, 0), 'a').await;
        serve((Ipv4Addr::new(127, 0, 0, 2), old.port()), 'b').await;
        let address = Arc::new(Mutex::new(old));
        let pool = pool(Resolver::Switched(Arc::clone(&address)), Duration::from_millis(200));
        assert_eq!(ask(&pool.client(), old.port()).await, "a");
        address.lock().expect("no panic").set_ip(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)));
        let changed = Instant::now();
        while ask(&pool.client(), old.port()).await == "a" {
            assert!(changed.elapsed() < Duration::from_secs(10), "the old connection is still used");
        }
        assert_eq!(ask(&pool.client(), old.port()).await, "b");
    }

    #[tokio::test]
    async fn connections_are_reused_until_their_maximum_age() {
        let old = serve((Ipv4Addr::LOCALHOST, 0), 'a').await;
        serve((Ipv4Addr::new(127, 0, 0, 2), old.port()), 'b').await;
        let address = Arc::new(Mutex::new(old));
        let pool = pool(Resolver::Switched(Arc::clone(&address)), Duration::from_hours(1));
        assert_eq!(ask(&pool.client(), old.port()).await, "a");
        address.lock().expect("no panic").set_ip(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)));
        assert_eq!(ask(&pool.client(), old.port()).await, "a", "the name is not resolved again");
    }

    #[tokio::test]
    async fn new_connections_accept_the_same_odd_answers_as_kept_ones() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a loopback address");
        let address = listener.local_addr().expect("it is bound");
        let odd: String = (0..200).map(|number| format!("x-{number}: 1\r\n")).chain(["a name: 1\r\n".into()]).collect();
        let odd = format!("HTTP/1.1 200 OK\r\n{odd}content-length: 1\r\n\r\na");
        crate::process::tasks::Tasks::new().spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.read_buf(&mut Vec::new()).await.expect("a request");
                stream.write_all(odd.as_bytes()).await.expect("the client reads");
            }
        });
        let pool = pool(Resolver::Switched(Arc::new(Mutex::new(address))), Duration::from_hours(1));
        assert_eq!(ask(&pool.client(), address.port()).await, "a");
        assert_eq!(ask(&unpooled(pool.connector.clone()), address.port()).await, "a");
    }

    #[test]
    fn each_runtime_has_connections_of_its_own() {
        let runtime = || runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (first, second) = (runtime(), runtime());
        let pool = pool(Resolver::default(), Duration::from_hours(1));
        for runtime in [&first, &second, &first] {
            runtime.block_on(async { drop(pool.client()) });
        }
        assert_eq!(pool.clients.lock().expect("no panic").len(), 2);
    }
}
