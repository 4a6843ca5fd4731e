//! Calls and agreement of several targets.

use std::sync::{Mutex, PoisonError};

use prometheus::{GaugeVec, IntCounterVec};

use super::catalogue;
use super::handles::Registrar;
use super::labels::{BreakerState, CallOutcome};

/// Maximum length of a model's name in a label, and number of models with series of their own.
const MAX_NAME_BYTES: usize = 128;
const MAX_MODELS: usize = 64;

/// Metrics of targets.
#[derive(Debug)]
pub struct TargetMetrics {
    calls: IntCounterVec,
    moves: IntCounterVec,
    breaker: GaugeVec,
    disagrees: GaugeVec,
    state: Mutex<TargetStates>,
}

/// Figures of one target since the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetFigures {
    /// Name of the target.
    pub name: String,
    /// Calls to it, each attempt counted.
    pub calls: u64,
    /// Calls of these that got no vectors.
    pub failures: u64,
    /// Calls that left it for another target.
    pub moves: u64,
    /// State of its breaker.
    pub breaker: BreakerState,
    /// Models for which its vectors disagree with those of the others.
    pub disagrees_for: Vec<String>,
}

#[derive(Debug, Default)]
struct TargetStates {
    names: Vec<String>,
    breakers: Vec<BreakerState>,
    /// Models with a series.
    models: Vec<String>,
    /// Targets and models whose vectors disagree.
    disagreeing: Vec<(String, String)>,
}

impl TargetMetrics {
    pub(super) fn new(registrar: &Registrar<'_>) -> Self {
        Self {
            calls: registrar.counter_vec(&catalogue::TARGET_CALLS),
            moves: registrar.counter_vec(&catalogue::TARGET_MOVES),
            breaker: registrar.float_gauge_vec(&catalogue::TARGET_BREAKER),
            disagrees: registrar.float_gauge_vec(&catalogue::TARGET_DISAGREES),
            state: Mutex::default(),
        }
    }

    /// Creates the series of the targets, in the order of the configuration.
    pub fn begin(&self, names: &[&str]) {
        for name in names {
            for outcome in CallOutcome::ALL {
                self.calls.with_label_values(&[*name, outcome.label()]).inc_by(0);
            }
            self.moves.with_label_values(&[*name]).inc_by(0);
            self.breaker.with_label_values(&[*name]).set(0.0);
        }
        let mut state = self.state();
        state.names = names.iter().map(|name| (*name).to_owned()).collect();
        state.breakers = vec![BreakerState::Closed; names.len()];
    }

    /// Records the end of one attempt of a call at a target.
    pub fn call(&self, name: &str, outcome: CallOutcome) {
        self.calls.with_label_values(&[name, outcome.label()]).inc();
    }

    /// Records that a call left a target for another one.
    pub fn left(&self, target: usize) {
        if let Some(name) = self.state().names.get(target) {
            self.moves.with_label_values(&[name.as_str()]).inc();
        }
    }

    /// Records the state of a target's breaker. Returns the state of the best target, if it has changed.
    pub fn breaker(&self, target: usize, new: BreakerState) -> Option<BreakerState> {
        let mut state = self.state();
        let best = |breakers: &[BreakerState]| breakers.iter().copied().min_by_key(|breaker| breaker.value());
        let before = best(&state.breakers);
        if let Some(breaker) = state.breakers.get_mut(target) {
            *breaker = new;
        }
        if let Some(name) = state.names.get(target) {
            #[expect(clippy::cast_precision_loss, reason = "it is 0, 1 or 2")]
            self.breaker.with_label_values(&[name.as_str()]).set(new.value() as f64);
        }
        best(&state.breakers).filter(|now| before != Some(*now))
    }

    /// Records the comparison of a target's vectors with those of the others.
    pub fn compared(&self, target: usize, model: &str, agrees: bool) {
        let model = &model[..model.floor_char_boundary(MAX_NAME_BYTES)];
        let mut state = self.state();
        let Some(name) = state.names.get(target).cloned() else { return };
        state.disagreeing.retain(|(known, of)| *known != name || of != model);
        if !agrees {
            state.disagreeing.push((name.clone(), model.to_owned()));
        }
        let is_known = state.models.iter().any(|known| known == model);
        if !is_known && state.models.len() < MAX_MODELS {
            state.models.push(model.to_owned());
        }
        let label = if is_known || state.models.last().is_some_and(|last| last == model) { model } else { "other" };
        self.disagrees.with_label_values(&[name.as_str(), label]).set(if agrees { 0.0 } else { 1.0 });
    }

    /// Returns the targets whose vectors disagree with those of the others, each with the model.
    pub fn disagreeing(&self) -> Vec<(String, String)> {
        self.state().disagreeing.clone()
    }

    /// Returns the figures of each target, in the order of the configuration. There is none without targets.
    pub fn figures(&self) -> Vec<TargetFigures> {
        let state = self.state();
        let figures = |(name, breaker): (&String, &BreakerState)| {
            let calls = |outcome: CallOutcome| self.calls.with_label_values(&[name.as_str(), outcome.label()]).get();
            let all: u64 = CallOutcome::ALL.iter().copied().map(calls).sum();
            let disagreeing = state.disagreeing.iter().filter(|(target, _)| target == name);
            TargetFigures {
                name: name.clone(),
                calls: all,
                failures: all - calls(CallOutcome::Ok),
                moves: self.moves.with_label_values(&[name.as_str()]).get(),
                breaker: *breaker,
                disagrees_for: disagreeing.map(|(_, model)| model.clone()).collect(),
            }
        };
        state.names.iter().zip(&state.breakers).map(figures).collect()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, TargetStates> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
