//! Sockets: listening, TLS, connections, their time limits and their end. Knows HTTP, and nothing of what is asked.
//!
//! [`Bound`] takes the port, [`Server`] says how it is served, [`Server::start`] begins, and [`Running`] is what is
//! left to hold: it ends the service with [`Running::drain`].
//!
//! ```text
//! listener    accept loop; the bound on connections; the answer to one too many
//! connection  one connection: handshake, choice of protocol, the calls of the handler
//! watch       drives it, and ends it when it idles, dawdles or stalls
//! vitals      the facts that the watch goes by, noted by stream, calls and answers
//! stream      the socket, noting reads and writes; gives hyper's bare error replies a body
//! drain       the orderly end
//! body        request bodies: bounded in size and in silence
//! ```

mod body;
mod connection;
mod drain;
mod handler;
mod head;
mod limits;
mod listener;
mod reply;
mod stream;
mod tls;
mod vitals;
mod watch;

pub use body::{BodyBounds, BodyError, CollectError, TimedBody, collect_bounded};
pub use drain::{Drained, Running};
pub use handler::{BoxError, Handler, Peer};
pub use head::{BadHead, check_head};
pub use limits::{ConnectionHooks, Fault, ServeLimits};
pub use listener::{BindError, Bound, Server};
pub use tls::{Tls, TlsError, pair_faults};
