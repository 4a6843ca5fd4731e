//! Interface of the request handler.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;

use crate::process::errors::BoxError;

/// Addresses and encryption of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Address of the caller. An IPv4 caller on an IPv6 socket has its IPv4 address here.
    pub addr: SocketAddr,
    /// Local address that was called.
    pub local: SocketAddr,
    /// True if the connection uses TLS.
    pub tls: bool,
}

/// Handles requests. Every suitable `Fn(Request<Incoming>, Peer) -> impl Future<Output = Response<B>>` is a handler.
pub trait Handler: Send + Sync + 'static {
    /// Body of responses.
    type Body: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static;
    /// Future of the response.
    type Future: Future<Output = Response<Self::Body>> + Send + 'static;

    /// Handles one request.
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
