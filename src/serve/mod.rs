//! HTTP server: sockets, TLS, connections, their timeouts and their shutdown. It does not know the meaning of requests.
//!
//! [`Bound`] binds the port, [`Server`] holds the settings, [`Server::start`] starts serving, and [`Running::drain`]
//! ends the service.
//!
//! ```text
//! listener    accept loop; the limit on connections; the refusal of connections over it
//! connection  one connection: handshake, choice of protocol, calls of the handler
//! driver      drives a connection, and closes it when one of its timeouts expires
//! stats       the state for the timeouts, recorded by stream, calls and responses
//! stream      the socket: records reads and writes, adds a body to hyper's bare error responses
//! end         the reasons for which a connection ends
//! framing     finds heads with two lengths among the bytes that the socket reads
//! drain       graceful shutdown
//! body        request bodies: limits on size and time
//! ```

mod body;
mod connection;
mod drain;
mod driver;
mod end;
mod framing;
mod handler;
mod head;
mod limits;
mod listener;
mod reply;
mod stats;
mod stream;
mod tls;

pub use body::{BodyBounds, BodyError, CollectError, TimedBody, collect_bounded};
pub use connection::UNSENT_BYTES;
pub use drain::{Drained, Running};
pub use handler::{Handler, Peer};
pub use head::{BadHead, check_head};
pub use limits::{ConnectionHooks, PeerFault, ServeLimits};
pub use listener::{BindError, Bound, Server};
pub use tls::Tls;
