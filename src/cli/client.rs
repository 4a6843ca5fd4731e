//! HTTP client of all commands: the only place for addresses, TLS, timeouts and errors of their requests.
//!
//! The client speaks plain HTTP/1.1. The ops port has no TLS, and a public port with TLS is refused.

use std::error::Error;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Method, Request, Response, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::admin::TOKEN_HEADER;
use crate::config::{Config, Secret};
use crate::process::connector::reachable;
use crate::process::errors::{BoxError, cause_of};

/// Timeout of a TCP connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout of a small request to the ops port.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest response that is read into memory.
const MAX_ANSWER_BYTES: usize = 16 << 20;

const STATS_PATH: &str = "/api/performance/cache/stats";

pub(super) type RequestBody = UnsyncBoxBody<Bytes, BoxError>;

/// Client of one server.
#[derive(Clone)]
pub(super) struct Client {
    pool: Pool<HttpConnector, RequestBody>,
    address: SocketAddr,
    /// Value of `host` if it differs from the address.
    host: Option<HeaderValue>,
    token: Option<HeaderValue>,
    /// The server as error messages name it.
    name: String,
    has_tls: bool,
}

/// Error of a request without a response.
#[derive(Debug, thiserror::Error)]
#[error("no answer from {name}: {cause}")]
pub(super) struct NoAnswer {
    name: String,
    pub(super) cause: Cause,
}

/// Reason why there is no response.
#[derive(Debug, thiserror::Error)]
pub(super) enum Cause {
    /// The connection was refused.
    #[error("nothing listens there")]
    Refused,
    /// The timeout expired.
    #[error("timed out after {0:?}")]
    Late(Duration),
    /// The connection or the response failed otherwise.
    #[error("{0}")]
    Failed(String),
    /// The port requires TLS.
    #[error("the public port speaks TLS, which this command does not")]
    Tls,
}

/// The text is not a usable URL.
#[derive(Debug, thiserror::Error)]
#[error("--url must be http://HOST:PORT/PATH with a host that is known")]
pub(super) struct BadUrl;

impl Client {
    /// Creates a client of the configured ops port, with the admin token if there is one.
    pub(super) fn of_ops_port(config: &Config) -> Self {
        let name = format!("admin_listen ({})", reachable(config.admin_listen));
        Self::new(config.admin_listen, name).with_token(config.admin.token.as_ref())
    }

    /// Creates a client of the configured public port.
    pub(super) fn of_public_port(config: &Config) -> Self {
        let name = format!("listen ({})", reachable(config.listen));
        Self { has_tls: config.tls.is_some(), ..Self::new(config.listen, name) }
    }

    /// Creates a client of the server of a URL, and returns the path to request. Blocks on name resolution.
    pub(super) fn of_url(url: &str) -> Result<(Self, String), BadUrl> {
        let uri: Uri = url.parse().map_err(|_| BadUrl)?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http")).ok_or(BadUrl)?;
        // The resolver takes IPv6 addresses without brackets.
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let address = (host, authority.port_u16().unwrap_or(80)).to_socket_addrs().ok();
        let address = address.and_then(|mut found| found.next()).ok_or(BadUrl)?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        // The connection goes to the address, but the server must see the name of the URL.
        let host = Some(HeaderValue::from_str(authority.as_str()).map_err(|_| BadUrl)?);
        Ok((Self { host, ..Self::new(address, authority.to_string()) }, path))
    }

    fn new(address: SocketAddr, name: String) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let pool = Pool::builder(TokioExecutor::new()).build(connector);
        Self { pool, address: reachable(address), host: None, token: None, name, has_tls: false }
    }

    fn with_token(self, token: Option<&Secret>) -> Self {
        let token = token.and_then(|token| HeaderValue::from_str(token.reveal()).ok());
        Self { token, ..self }
    }

    /// Returns the client without the admin token.
    pub(super) fn without_token(self) -> Self {
        Self { token: None, ..self }
    }

    /// Returns the URL of a path on this server.
    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Creates a request with no headers except the token and, for a URL, its host.
    pub(super) fn request(&self, method: Method, path: &str, body: RequestBody) -> Request<RequestBody> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        // A socket address with one of our paths always forms a valid URI.
        *request.uri_mut() = self.url(path).parse().unwrap_or_default();
        let token = self.token.clone().map(|token| (TOKEN_HEADER, token));
        request.headers_mut().extend(token.into_iter().chain(self.host.clone().map(|host| (HOST, host))));
        request
    }

    /// Sends a request and returns the response without its body. Only the TCP connect has a timeout: an export or a
    /// batch may take as long as the server allows.
    pub(super) async fn send(&self, request: Request<RequestBody>) -> Result<Response<Incoming>, NoAnswer> {
        self.pool.request(request).await.map_err(|error| {
            // The client also reports other connect errors, such as timeouts, so the cause decides.
            let is_refused = error.is_connect() && is_refused(&error);
            self.no_answer(if is_refused { Cause::Refused } else { Cause::Failed(cause_of(&error)) })
        })
    }

    /// Sends a request without a body, with a timeout for the head of the response.
    pub(super) async fn request_head(
        &self,
        method: Method,
        path: &str,
        limit: Duration,
    ) -> Result<Response<Incoming>, NoAnswer> {
        let answer = timeout(limit, self.send(self.request(method, path, whole("")))).await;
        answer.map_err(|_| self.no_answer(Cause::Late(limit)))?
    }

    /// Returns the statistics of the cache, or null if the ops port does not return them.
    pub(super) async fn stats(&self) -> Value {
        let Ok(answer) = self.request_head(Method::GET, STATS_PATH, REQUEST_TIMEOUT).await else { return Value::Null };
        read_whole(answer.into_body())
            .await
            .ok()
            .and_then(|body| serde_json::from_slice(&body).ok())
            .unwrap_or_default()
    }

    /// Returns true if the port accepts connections. Fails if the port requires TLS.
    pub(super) async fn is_reachable(&self) -> Result<bool, NoAnswer> {
        match timeout(CONNECT_TIMEOUT, TcpStream::connect(self.address)).await {
            Ok(Ok(_)) if self.has_tls => Err(self.no_answer(Cause::Tls)),
            Ok(Ok(_)) => Ok(true),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
            // Port 0 is never in use.
            Ok(Err(_)) if self.address.port() == 0 => Ok(false),
            Ok(Err(error)) => Err(self.no_answer(Cause::Failed(error.to_string()))),
            Err(_) => Err(self.no_answer(Cause::Late(CONNECT_TIMEOUT))),
        }
    }

    fn no_answer(&self, cause: Cause) -> NoAnswer {
        NoAnswer { name: self.name.clone(), cause }
    }
}

/// Creates a complete body.
pub(super) fn whole(bytes: impl Into<Bytes>) -> RequestBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Reads the whole body of a response. Fails if it is too large.
pub(super) async fn read_whole(body: Incoming) -> Result<Bytes, String> {
    match Limited::new(body, MAX_ANSWER_BYTES).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err("the answer is too large".to_owned()),
        Err(error) => Err(cause_of(&*error)),
    }
}

fn is_refused(error: &(dyn Error + 'static)) -> bool {
    // The operating system's error is at the end of a chain of wrappers.
    std::iter::successors(Some(error), |error| (*error).source()).any(|cause| {
        let io = cause.downcast_ref::<io::Error>();
        io.is_some_and(|io| io.kind() == io::ErrorKind::ConnectionRefused)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_without_a_port_means_80_and_https_is_refused() {
        let (client, path) = Client::of_url("http://127.0.0.1/x?y=1").unwrap();
        assert_eq!((client.address.port(), path.as_str()), (80, "/x?y=1"));
        assert!(Client::of_url("http://[::1]:7862/readyz").is_ok());
        assert!(Client::of_url("https://127.0.0.1/").is_err());
    }

    #[test]
    fn the_host_of_a_url_is_sent_as_written() {
        let (client, path) = Client::of_url("http://LocalHost:7862/readyz").unwrap();
        assert_eq!(client.request(Method::GET, &path, whole("")).headers()[HOST], "LocalHost:7862");
    }
}
