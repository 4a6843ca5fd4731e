//! What a server calls for each request.

use std::error::Error;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;

/// An error of any kind, as hyper takes it from a body.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Who calls, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The caller's address; an IPv4 caller on an IPv6 socket shows its IPv4 address.
    pub addr: SocketAddr,
    /// The address it called.
    pub local: SocketAddr,
    /// Whether the connection is encrypted.
    pub tls: bool,
}

/// Answers requests. Every suitable `Fn(Request<Incoming>, Peer) -> impl Future<Output = Response<B>>` is one.
pub trait Handler: Send + Sync + 'static {
    /// The body of answers.
    type Body: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static;
    /// The answer to come.
    type Future: Future<Output = Response<Self::Body>> + Send + 'static;

    /// Answers one request.
    fn call(&self, request: Request<Incoming>, peer: Peer) -> Self::Future;
}

impl<F, Fut, B> Handler for F
where
    F: Fn(Request<Incoming>, Peer) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    type Body = B;
    type Future = Fut;

    fn call(&self, request: Request<Incoming>, peer: Peer) -> Fut {
        self(request, peer)
    }
}
