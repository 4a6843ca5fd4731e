//! Checks whether models change behind their names.

use std::sync::{Mutex, PoisonError};

use prometheus::GaugeVec;

use super::catalogue;
use super::handles::{Counter, PerLabel, Registrar};
use super::labels::WatchResult;

/// Maximum length of a model's name in a label.
const MAX_NAME_BYTES: usize = 128;

/// Metrics of the model watch.
#[derive(Debug)]
pub struct WatchMetrics {
    checks: PerLabel<WatchResult, Counter>,
    tokens: Counter,
    drifted: GaugeVec,
    difference: GaugeVec,
    /// Models whose last check found other vectors.
    changed: Mutex<Vec<String>>,
}

impl WatchMetrics {
    pub(super) fn new(registrar: &Registrar<'_>) -> Self {
        Self {
            checks: registrar.counters(&catalogue::WATCH_CHECKS),
            tokens: registrar.counter(&catalogue::WATCH_TOKENS),
            drifted: registrar.float_gauge_vec(&catalogue::WATCH_DRIFTED),
            difference: registrar.float_gauge_vec(&catalogue::WATCH_DIFFERENCE),
            changed: Mutex::default(),
        }
    }

    /// Records a check of a model. The caller must bound the number of models.
    pub fn checked(&self, result: WatchResult, model: &str, difference: f64) {
        self.checks.of(result).inc();
        let model = &model[..model.floor_char_boundary(MAX_NAME_BYTES)];
        let has_drifted = match result {
            WatchResult::Drifted => true,
            WatchResult::Same | WatchResult::First => false,
            // These say nothing about the vectors.
            WatchResult::Unsteady
            | WatchResult::Elsewhere
            | WatchResult::Skipped
            | WatchResult::Failed
            | WatchResult::Refused => return,
        };
        self.drifted.with_label_values(&[model]).set(if has_drifted { 1.0 } else { 0.0 });
        self.difference.with_label_values(&[model]).set(difference);
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        changed.retain(|known| known != model);
        if has_drifted {
            changed.push(model.to_owned());
        }
    }

    /// Records the tokens of a check.
    pub fn tokens(&self, n: u64) {
        self.tokens.add(n);
    }

    /// Returns the models whose last check found other vectors.
    pub fn changed(&self) -> Vec<String> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
