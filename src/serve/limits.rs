//! What a connection may take, and who is told about it.

use std::time::Duration;

use crate::config::Limits;

/// How long a peer may leave an answer unread before its connection is cut.
const WRITE_TIMEOUT: Duration = Duration::from_mins(1);

/// Bounds on connections.
#[derive(Clone, Debug)]
pub struct ServeLimits {
    /// Connections open at once.
    pub max_connections: usize,
    /// Bytes of a request head.
    pub max_header_bytes: usize,
    /// From the first to the last byte of a request head, and for a TLS handshake.
    pub header_timeout: Duration,
    /// Between two requests on one connection, and before the first.
    pub idle_timeout: Duration,
    /// Between two pieces of an answer that the peer takes.
    pub write_timeout: Duration,
}

impl From<&Limits> for ServeLimits {
    fn from(limits: &Limits) -> Self {
        Self {
            max_connections: limits.max_connections,
            max_header_bytes: limits.max_header_bytes,
            header_timeout: limits.header_timeout,
            idle_timeout: limits.idle_timeout,
            write_timeout: WRITE_TIMEOUT,
        }
    }
}

/// What a peer did wrong, so that its connection was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The request head was not HTTP.
    UnreadableHead,
    /// The request head was HTTP and not allowed: its host, or its transfer coding.
    BadHead,
    /// The request head was over a limit.
    HeadTooLarge,
    /// A request head was begun and not finished in time.
    HeadTimeout,
    /// The answer was not read.
    WriteStalled,
    /// The TLS handshake failed or took too long.
    TlsHandshake,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::UnreadableHead,
        Self::BadHead,
        Self::HeadTooLarge,
        Self::HeadTimeout,
        Self::WriteStalled,
        Self::TlsHandshake,
    ];

    /// Its name in logs and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::UnreadableHead => "unreadable_head",
            Self::BadHead => "bad_head",
            Self::HeadTooLarge => "head_too_large",
            Self::HeadTimeout => "head_timeout",
            Self::WriteStalled => "write_stalled",
            Self::TlsHandshake => "tls_handshake",
        }
    }
}

/// Is told what happens to connections; the metrics' way in. `()` listens to nothing.
pub trait ConnectionHooks: Send + Sync + 'static {
    /// A connection was accepted.
    fn opened(&self) {}
    /// The socket of an accepted connection was closed, upgraded ones included.
    fn closed(&self) {}
    /// A connection over the bound was turned away.
    fn rejected(&self) {}
    /// A connection was ended for what its peer did.
    fn protocol_error(&self, fault: Fault) {
        let _ = fault;
    }
}

impl ConnectionHooks for () {}
