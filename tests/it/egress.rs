//! The way to the upstream: forward proxies, client certificates, HTTP/2.

mod identity;
mod proxies;
mod refusals;
