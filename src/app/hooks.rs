//! Hooks through which parts of the layers below report to the metrics, which they do not know.

use std::sync::Arc;

use crate::observe::metrics::{Metrics, Port, Rejection};
use crate::process::governor::{GovernorAction, GovernorHooks};
use crate::serve::{ConnectionHooks, PeerFault};

/// Counts measurements and actions of the governor.
pub(super) struct MemoryHooks(pub(super) Arc<Metrics>);

impl GovernorHooks for MemoryHooks {
    fn measured(&self, resident_bytes: u64) {
        self.0.memory.resident.set(resident_bytes);
    }

    fn acted(&self, kind: GovernorAction) {
        self.0.memory.governor(kind);
    }
}

/// Counts the connections of one port.
pub(super) struct PortHooks {
    port: Port,
    metrics: Arc<Metrics>,
}

impl PortHooks {
    pub(super) const fn new(port: Port, metrics: Arc<Metrics>) -> Self {
        Self { port, metrics }
    }
}

impl ConnectionHooks for PortHooks {
    fn opened(&self) {
        self.metrics.connections.open.of(self.port).inc();
    }

    fn closed(&self) {
        self.metrics.connections.open.of(self.port).dec();
    }

    fn rejected(&self) {
        self.metrics.connections.rejected.of(self.port).inc();
        if self.port == Port::Public {
            self.metrics.requests.rejected(Rejection::Connections);
        }
    }

    fn protocol_error(&self, fault: PeerFault) {
        tracing::debug!(port = self.port.label(), fault = fault.label(), "a connection broke the protocol");
        self.metrics.requests.rejected(Rejection::Header);
    }
}
