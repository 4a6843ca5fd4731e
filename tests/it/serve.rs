//! The server's sockets: waiting connections, refused connections, and shutdown.

mod drain;
mod harness;
mod limits;
mod requests;
mod tls;
