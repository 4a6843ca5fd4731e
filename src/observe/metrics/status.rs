//! Readiness, and reloads of the configuration.

use super::catalogue;
use super::handles::{Counter, Gauge, PerLabel, Registrar};
use super::labels::ReloadResult;

/// Metrics of readiness and configuration.
#[derive(Debug)]
pub struct StatusMetrics {
    config_reloads: PerLabel<ReloadResult, Counter>,
    config_current: Gauge,
    ready: Gauge,
}

impl StatusMetrics {
    pub(super) fn new(registrar: &Registrar<'_>) -> Self {
        let metrics = Self {
            config_reloads: registrar.counters(&catalogue::CONFIG_RELOADS),
            config_current: registrar.gauge(&catalogue::CONFIG_CURRENT),
            ready: registrar.gauge(&catalogue::READY),
        };
        metrics.config_current.set(1);
        metrics
    }

    /// Records a configuration reload.
    pub fn config_reload(&self, result: ReloadResult) {
        self.config_reloads.of(result).inc();
        self.config_current.set(u64::from(result == ReloadResult::Ok));
    }

    /// Returns true if the configuration as last read is in force.
    pub fn is_config_current(&self) -> bool {
        self.config_current.get() != 0
    }

    /// Sets whether requests are accepted.
    pub fn ready(&self, ready: bool) {
        self.ready.set(u64::from(ready));
    }
}
