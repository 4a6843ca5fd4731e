//! The pacers of one place.

use std::sync::Arc;
use std::time::Duration;

use super::limits::SetLimits;
use super::pacer::Pacer;
use super::state::PaceFigures;
use crate::config::{PaceConfig, PaceMode, TargetConfig};
use crate::key::{Key, Spread};
use crate::process::expiring::ExpiringMap;

/// Maximum number of pacers.
const MAX_PACERS: u64 = 10_000;

/// Time after its last call for which the limits of a credential and model are remembered.
const REMEMBERED_FOR: Duration = Duration::from_hours(1);

/// Limits of one credential and model at one place as they are now, for operators.
#[derive(Clone, Debug, PartialEq)]
pub struct PaceReport {
    /// Name of the target, if there are several.
    pub target: Option<Arc<str>>,
    /// Name of the model.
    pub model: String,
    /// The limits.
    pub figures: PaceFigures,
}

/// Pacers by credential and model.
#[derive(Debug)]
pub struct Pacers {
    map: ExpiringMap<Key, Arc<Pacer>, Spread>,
    limits: SetLimits,
    learns: bool,
    is_shared: bool,
}

impl Pacers {
    /// Creates the pacers of the only upstream, or returns `None` if calls are not paced.
    pub fn of_upstream(config: &PaceConfig) -> Option<Self> {
        let limits = SetLimits {
            requests_per_minute: config.requests_per_minute,
            tokens_per_minute: config.tokens_per_minute,
            concurrent: config.concurrent,
        };
        Self::new(config, limits)
    }

    /// Creates the pacers of a target, or returns `None` if its calls are not paced.
    pub fn of_target(config: &PaceConfig, target: &TargetConfig) -> Option<Self> {
        let limits = SetLimits {
            requests_per_minute: target.requests_per_minute,
            tokens_per_minute: target.tokens_per_minute,
            // So waiting calls for one model have an order. `TargetPlace::has_room` counts those for all models.
            concurrent: target.concurrent,
        };
        Self::new(config, limits)
    }

    fn new(config: &PaceConfig, limits: SetLimits) -> Option<Self> {
        let learns = config.mode == PaceMode::Auto;
        let is_paced = learns || limits != SetLimits::default();
        let map = ExpiringMap::new(MAX_PACERS, REMEMBERED_FOR);
        is_paced.then_some(Self { map, limits, learns, is_shared: config.shared })
    }

    /// Returns the pacer of a credential and model. `model` is the model's name, for operators.
    pub(in crate::upstream) fn of(&self, key: Key, model: &str) -> Arc<Pacer> {
        self.map.get_or_insert_with(key, || {
            let pacer = Pacer::new(model, &self.limits, self.learns);
            if self.is_shared {
                pacer.begin_sharing();
            }
            Arc::new(pacer)
        })
    }

    /// Returns true if limits are learned from the service's answers.
    pub(in crate::upstream) const fn learns(&self) -> bool {
        self.learns
    }

    /// Returns all pacers with their keys.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Key, Arc<Pacer>)> + '_ {
        self.map.entries()
    }

    /// Returns the limits of each model. Credentials without a limit, a wait and a call in flight are left out.
    pub(in crate::upstream) fn reports(&self) -> Vec<PaceReport> {
        let report = |pacer: Arc<Pacer>| {
            let figures = pacer.figures();
            figures.is_of_interest().then(|| PaceReport { target: None, model: pacer.model().to_owned(), figures })
        };
        self.map.entries().filter_map(|(_, pacer)| report(pacer)).collect()
    }
}
