//! HTTP client for a running vecho.

use std::error::Error;
use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::health::reachable;
use crate::admin::TOKEN_HEADER;
use crate::config::Secret;

/// Largest response that is read into memory.
const MAX_ANSWER_BYTES: usize = 16 << 20;

pub(super) type BoxError = Box<dyn Error + Send + Sync>;
pub(super) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Client of one of the two ports.
#[derive(Clone)]
pub(super) struct Port {
    client: Client<HttpConnector, Body>,
    base: String,
    token: Option<HeaderValue>,
}

/// Reason why there is no response.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    /// Nothing listens at the address.
    #[error("nothing listens at {0}")]
    NobodyThere(String),
    /// A server may listen, but it did not respond.
    #[error("no answer from {0}: {1}")]
    Failed(String, String),
}

impl Port {
    /// Creates a client for a configured address, with the admin token if there is one.
    pub(super) fn new(address: SocketAddr, token: Option<&Secret>) -> Self {
        Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
            base: format!("http://{}", reachable(address)),
            token: token.and_then(|token| HeaderValue::from_str(token.reveal()).ok()),
        }
    }

    /// Creates a request whose only header is the token.
    pub(super) fn request(&self, method: Method, path: &str, body: Body) -> Request<Body> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        // A socket address with one of our paths always forms a valid URI.
        *request.uri_mut() = format!("{}{path}", self.base).parse().unwrap_or_default();
        if let Some(token) = &self.token {
            request.headers_mut().insert(TOKEN_HEADER, token.clone());
        }
        request
    }

    /// Sends a request and returns the response without its body.
    pub(super) async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, NoAnswer> {
        self.client.request(request).await.map_err(|error| {
            let refused = causes(&error).any(|cause| {
                let io = cause.downcast_ref::<io::Error>();
                io.is_some_and(|io| io.kind() == io::ErrorKind::ConnectionRefused)
            });
            if error.is_connect() && refused {
                NoAnswer::NobodyThere(self.base.clone())
            } else {
                NoAnswer::Failed(self.base.clone(), told(&error))
            }
        })
    }
}

/// Creates a complete body.
pub(super) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Reads the whole body of a response. Fails if it is too large.
pub(super) async fn read_whole(body: Incoming) -> Result<Bytes, String> {
    match Limited::new(body, MAX_ANSWER_BYTES).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err("the answer is too large".to_owned()),
        Err(error) => Err(told(&*error)),
    }
}

/// Formats an error with its causes: the outermost error of hyper is not informative.
pub(super) fn told(error: &(dyn Error + 'static)) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}
