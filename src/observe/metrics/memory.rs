//! Resident memory, its limit, and the actions of the governor.

use super::catalogue;
use super::handles::{Counter, Gauge, PerLabel, Registrar};
use crate::process::governor::GovernorAction;

/// Metrics of the process's memory.
#[derive(Debug)]
pub struct MemoryMetrics {
    /// Resident memory at the governor's last check.
    pub resident: Gauge,
    /// Memory limit of the governor.
    pub limit: Gauge,
    actions: PerLabel<GovernorAction, Counter>,
}

impl MemoryMetrics {
    pub(super) fn new(registrar: &Registrar<'_>) -> Self {
        Self {
            resident: registrar.gauge(&catalogue::MEMORY_RESIDENT),
            limit: registrar.gauge(&catalogue::MEMORY_LIMIT),
            actions: registrar.counters(&catalogue::GOVERNOR_ACTIONS),
        }
    }

    /// Records an action of the governor.
    pub fn governor(&self, action: GovernorAction) {
        self.actions.of(action).inc();
    }

    /// Returns the governor's actions since the start.
    pub fn governor_actions(&self) -> Vec<(&'static str, u64)> {
        GovernorAction::ALL.iter().map(|action| (action.label(), self.actions.of(*action).get())).collect()
    }
}
