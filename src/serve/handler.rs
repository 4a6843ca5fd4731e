//! Interface of the request handler.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

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

impl Peer {
    /// Returns true if the caller is in the same network, as far as its address shows: on this machine, or at an
    /// address that is not routed on the internet.
    pub fn is_near(&self) -> bool {
        let addr = self.addr.ip();
        addr == self.local.ip()
            || match addr {
                IpAddr::V4(addr) => addr.is_loopback() || addr.is_private() || addr.is_link_local() || is_shared(addr),
                IpAddr::V6(addr) => addr.is_loopback() || addr.is_unique_local() || addr.is_unicast_link_local(),
            }
    }
}

/// Returns true for 100.64.0.0/10 (RFC 6598), which cluster networks use as well.
fn is_shared(addr: Ipv4Addr) -> bool {
    let [first, second, ..] = addr.octets();
    first == 100 && second & 0xc0 == 64
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_at_addresses_that_the_internet_does_not_route_are_near() {
        for (addr, local, is_near) in [
            ("127.0.0.1:1", "127.0.0.1:80", true),
            ("127.8.0.1:1", "127.0.0.1:80", true),
            ("[::1]:1", "[::1]:80", true),
            ("203.0.113.1:1", "203.0.113.1:80", true),
            ("10.1.2.3:1", "10.0.0.1:80", true),
            ("172.31.0.9:1", "10.0.0.1:80", true),
            ("192.168.0.9:1", "10.0.0.1:80", true),
            ("169.254.0.9:1", "10.0.0.1:80", true),
            ("100.64.0.9:1", "10.0.0.1:80", true),
            ("100.127.0.9:1", "10.0.0.1:80", true),
            ("[fd00::9]:1", "[fd00::1]:80", true),
            ("[fe80::9]:1", "[fe80::1]:80", true),
            ("203.0.113.2:1", "203.0.113.1:80", false),
            ("100.128.0.9:1", "10.0.0.1:80", false),
            ("172.32.0.9:1", "10.0.0.1:80", false),
            ("[2001:db8::2]:1", "[2001:db8::1]:80", false),
        ] {
            let [addr, local] = [addr, local].map(|addr| addr.parse().expect("it is an address"));
            assert_eq!(Peer { addr, local, tls: false }.is_near(), is_near, "{addr} {local}");
        }
    }
}
