//! TCP keepalive, for outbound and inbound connections.

use std::time::Duration;

/// Silence before the first probe, and the interval of probes. It is shorter than the idle timeouts
/// of common NAT gateways and load balancers, of which 30 s is the shortest.
pub const KEEPALIVE: Duration = Duration::from_secs(15);
/// Unanswered probes after which the operating system closes a connection.
pub const KEEPALIVE_PROBES: u32 = 3;
