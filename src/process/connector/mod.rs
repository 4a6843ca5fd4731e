//! HTTP client connections over TCP or TLS, with one deadline for name resolution, connect and handshake.

mod keepalive;
mod reachable;
mod resolver;
mod timed;
mod tls;
mod tracked;

pub use keepalive::{KEEPALIVE, KEEPALIVE_PROBES};
pub use reachable::reachable;
pub use resolver::Resolver;
pub use timed::{Connecting, TimedConnector};
pub use tls::{TlsError, roots_fault};
pub use tracked::{ConnectionUse, Tracked};
