//! Limits of connections, and hooks for their events.

use std::time::Duration;

use crate::config::LimitsConfig;

/// Longest time that a peer may leave a response unread until its connection is cut.
const WRITE_TIMEOUT: Duration = Duration::from_mins(1);

/// Limits of connections.
#[derive(Clone, Debug)]
pub struct ServeLimits {
    /// Connections open at once.
    pub max_connections: usize,
    /// Size of a request head in bytes.
    pub max_header_bytes: usize,
    /// Time from the first to the last byte of a request head, and time of a TLS handshake.
    pub header_timeout: Duration,
    /// Time between two requests on one connection, and before the first.
    pub idle_timeout: Duration,
    /// Time between two chunks of a response that the peer reads.
    pub write_timeout: Duration,
}

impl From<&LimitsConfig> for ServeLimits {
    fn from(limits: &LimitsConfig) -> Self {
        Self {
            max_connections: limits.max_connections,
            max_header_bytes: limits.max_header_bytes,
            header_timeout: limits.header_timeout,
            idle_timeout: limits.idle_timeout,
            write_timeout: WRITE_TIMEOUT,
        }
    }
}

/// Fault of a peer that ended its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerFault {
    /// The request head was not valid HTTP.
    UnreadableHead,
    /// The request head was valid HTTP, but its host or its transfer coding is not allowed.
    BadHead,
    /// The request head was over a limit.
    HeadTooLarge,
    /// The request head was not complete in time.
    HeadTimeout,
    /// The response was not read.
    WriteStalled,
    /// The TLS handshake failed or took too long.
    TlsHandshake,
}

impl PeerFault {
    /// All faults.
    pub const ALL: [Self; 6] = [
        Self::UnreadableHead,
        Self::BadHead,
        Self::HeadTooLarge,
        Self::HeadTimeout,
        Self::WriteStalled,
        Self::TlsHandshake,
    ];

    /// Returns the name in logs and metrics.
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

/// Hooks for connection events, used by the metrics. `()` ignores all events.
pub trait ConnectionHooks: Send + Sync + 'static {
    /// A connection was accepted.
    fn opened(&self) {}
    /// The socket of an accepted connection was closed. Includes upgraded connections.
    fn closed(&self) {}
    /// A connection over the limit was refused.
    fn rejected(&self) {}
    /// A connection was ended because of a fault of its peer.
    fn protocol_error(&self, fault: PeerFault) {
        let _ = fault;
    }
}

impl ConnectionHooks for () {}
