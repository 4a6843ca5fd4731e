//! HTTP client connections over TCP or TLS, directly or through a forward proxy, with one deadline for name resolution,
//! connect and handshake.

mod keepalive;
mod proxy;
mod reachable;
mod resolver;
mod route;
mod timed;
mod tls;
mod tracked;
mod tunnel;

pub use keepalive::{KEEPALIVE, KEEPALIVE_PROBES};
pub use proxy::{ForwardProxy, ProxyRules};
pub use reachable::reachable;
pub use resolver::Resolver;
pub use route::ProxyError;
pub use timed::{Connecting, OpenConnection, TimedConnector};
pub use tls::{TlsError, roots_fault};
pub use tracked::{ConnectionUse, Tracked};
