//! Sockets: who is kept waiting, who is turned away, and how a server ends.

mod drain;
mod harness;
mod limits;
mod requests;
mod tls;
