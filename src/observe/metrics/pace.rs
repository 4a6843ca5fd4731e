//! Calls that wait for their turn, so that they stay inside the rate limits of the service.

use std::time::Duration;

use prometheus::{GaugeVec, HistogramVec};

use super::catalogue;
use super::handles::{Counter, Gauge, PerLabel, Registrar};
use crate::config::Priority;

/// Number of models with series of their own.
const MAX_MODELS: usize = 64;

/// Limits of one credential and model, at one target if there are several.
#[derive(Clone, Copy, Debug)]
pub struct ShownLimit<'a> {
    /// Name of the target; empty without targets.
    pub target: &'a str,
    /// Name of the model.
    pub model: &'a str,
    /// Calls a minute, and what is left of them.
    pub requests: Option<(f64, f64)>,
    /// Tokens a minute, and what is left of them.
    pub tokens: Option<(f64, f64)>,
    /// Time for which calls are held back.
    pub held: Duration,
}

/// Metrics of paced calls.
#[derive(Debug)]
pub struct PaceMetrics {
    /// Calls that wait, by priority.
    pub waiting: PerLabel<Priority, Gauge>,
    waits: HistogramVec,
    limit: GaugeVec,
    left: GaugeVec,
    held: GaugeVec,
    /// Requests that were refused because their turn would have come too late, by priority.
    pub refused: PerLabel<Priority, Counter>,
}

impl PaceMetrics {
    pub(super) fn new(registrar: &Registrar<'_>) -> Self {
        let waits = registrar.histograms(&catalogue::PACE_WAIT);
        for priority in Priority::ALL {
            drop(waits.with_label_values(&[priority.name()]));
        }
        Self {
            waiting: registrar.gauges(&catalogue::PACE_WAITING),
            waits,
            limit: registrar.float_gauge_vec(&catalogue::PACE_LIMIT),
            left: registrar.float_gauge_vec(&catalogue::PACE_LEFT),
            held: registrar.float_gauge_vec(&catalogue::PACE_HELD),
            refused: registrar.counters(&catalogue::PACE_REFUSED),
        }
    }

    /// Shows the limits that are known; for a hook of [`on_scrape`](super::Metrics::on_scrape). Of several credentials
    /// with one model, the scarcest limit is shown.
    pub fn show(&self, limits: &[ShownLimit<'_>]) {
        self.limit.reset();
        self.left.reset();
        self.held.reset();
        let mut models = Vec::new();
        for shown in limits {
            let is_known = models.contains(&shown.model);
            if !is_known && models.len() < MAX_MODELS {
                models.push(shown.model);
            }
            let model = if is_known || models.last() == Some(&shown.model) { shown.model } else { "other" };
            let held = self.held.with_label_values(&[shown.target, model]);
            held.set(held.get().max(shown.held.as_secs_f64()));
            for (resource, limit) in [("requests", shown.requests), ("tokens", shown.tokens)] {
                let Some((per_minute, left)) = limit else { continue };
                let labels = [shown.target, model, resource];
                let (limit, shown_left) = (self.limit.with_label_values(&labels), self.left.with_label_values(&labels));
                let is_scarcer = limit.get().abs() < f64::EPSILON || left / per_minute < shown_left.get() / limit.get();
                if is_scarcer {
                    limit.set(per_minute);
                    shown_left.set(left);
                }
            }
        }
    }

    /// Records the end of a wait.
    pub fn waited(&self, priority: Priority, wait: Duration) {
        self.waits.with_label_values(&[priority.name()]).observe(wait.as_secs_f64());
    }
}
