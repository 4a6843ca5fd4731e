//! Connections by port.

use super::catalogue;
use super::handles::{Counter, Gauge, PerLabel, Registrar};
use super::labels::Port;

/// Metrics of connections.
#[derive(Debug)]
pub struct ConnectionMetrics {
    /// Open connections, by port.
    pub open: PerLabel<Port, Gauge>,
    /// Connections closed because too many were open, by port.
    pub rejected: PerLabel<Port, Counter>,
}

impl ConnectionMetrics {
    pub(super) fn new(registrar: &Registrar<'_>) -> Self {
        Self {
            open: registrar.gauges(&catalogue::CONNECTIONS),
            rejected: registrar.counters(&catalogue::CONNECTIONS_REJECTED),
        }
    }
}
