//! The way to the upstream: forward proxies, client certificates, HTTP/2.

mod http2;
mod identity;
mod others;
mod proxies;
mod refusals;
