//! Tunnels through a forward proxy, opened by CONNECT (RFC 9110, section 9.3.6).

use std::future::poll_fn;

use bytes::Bytes;
use http::header::{HOST, PROXY_AUTHORIZATION};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::rt::{Read, Write};

use super::proxy::port_or_default;

/// Maximum size of the head of a proxy's answer.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Reason why a proxy opened no tunnel.
#[derive(Debug, thiserror::Error)]
pub(super) enum TunnelError {
    /// The proxy answered with another status than a success.
    #[error("it answers {0}")]
    Refused(StatusCode),
    /// The connection ended, or the answer is not HTTP.
    #[error("it did not answer CONNECT: {0}")]
    Broken(#[from] hyper::Error),
    /// Bytes came before any were sent through the tunnel.
    #[error("it sent bytes of its own through the tunnel")]
    Polluted,
    /// The host and port of the address form no valid request.
    #[error("{0}")]
    Target(#[from] http::Error),
}

/// Returns the host and port of an address, as CONNECT names them.
pub(super) fn authority_of(uri: &Uri) -> String {
    format!("{}:{}", uri.host().unwrap_or_default(), port_or_default(uri))
}

/// Asks the proxy at the other end of `stream` for a tunnel. Returns the stream, which then leads to the target.
pub(super) async fn open_tunnel<T>(stream: T, target: &Uri, credentials: Option<&HeaderValue>) -> Result<T, TunnelError>
where
    T: Read + Write + Unpin + Send + 'static,
{
    let authority = authority_of(target);
    let mut request = Request::builder().method(Method::CONNECT).uri(&*authority).header(HOST, &*authority);
    if let Some(credentials) = credentials {
        request = request.header(PROXY_AUTHORIZATION, credentials);
    }
    let request = request.body(Empty::<Bytes>::new())?;
    let (mut sender, mut connection) = http1::Builder::new().max_buf_size(MAX_HEAD_BYTES).handshake(stream).await?;
    let mut answering = std::pin::pin!(sender.send_request(request));
    let mut is_done = false;
    let response = loop {
        tokio::select! {
            biased;
            response = answering.as_mut() => break response?,
            ended = poll_fn(|context| connection.poll_without_shutdown(context)), if !is_done => {
                ended?;
                is_done = true;
            }
        }
    };
    if !response.status().is_success() {
        return Err(TunnelError::Refused(response.status()));
    }
    // The connection gives its stream back only after it has noticed the tunnel.
    if !is_done {
        poll_fn(|context| connection.poll_without_shutdown(context)).await?;
    }
    let parts = connection.into_parts();
    // In TLS the client speaks first, so nothing can have arrived for it yet.
    if parts.read_buf.is_empty() { Ok(parts.io) } else { Err(TunnelError::Polluted) }
}
