//! Reads the counters back as figures for people.

use std::sync::PoisonError;

use prometheus::core::Metric;
use serde::Serialize;

use super::Metrics;
use super::history::{Levels, Totals};
use super::labels::{BreakerState, Bypass, CallOutcome, GovernorAction, Outcome, RetryReason, Route, SourceLabel};
use super::latency::{Durations, Percentiles};

/// Calls to the upstream since the start.
#[derive(Clone, Debug)]
pub struct UpstreamFigures {
    /// Calls by outcome.
    pub calls: Vec<(&'static str, u64)>,
    /// Durations of all calls, including response bodies.
    pub latency_ms: Percentiles,
    /// Retries.
    pub retries: u64,
    /// Mean number of inputs per call; 0 before the first call.
    pub mean_inputs_per_call: f64,
    /// Calls by number of inputs.
    pub batch_sizes: Vec<Bucket>,
}

/// Calls in one range of sizes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bucket {
    /// Upper bound of the inputs, inclusive; the previous bucket's bound is the exclusive lower bound. `None` for the
    /// last bucket, which is unbounded.
    pub le: Option<f64>,
    /// Number of calls.
    pub calls: u64,
}

impl Metrics {
    /// Returns answered inputs since the start, by source.
    pub fn inputs_by_source(&self) -> Vec<(&'static str, u64)> {
        SourceLabel::ALL.iter().map(|source| (source.label(), self.inputs_so_far(*source))).collect()
    }

    /// Returns requests on the public port since the start, by outcome.
    pub fn requests_by_outcome(&self) -> Vec<(&'static str, u64)> {
        let sum = |outcome| Route::ALL.iter().map(|route| self.requests.of(*route).of(outcome).get()).sum();
        Outcome::ALL.iter().map(|outcome| (outcome.label(), sum(*outcome))).collect()
    }

    /// Returns embeddings requests since the start that passed through uncached, by reason.
    pub fn bypasses_by_reason(&self) -> Vec<(&'static str, u64)> {
        Bypass::ALL.iter().map(|reason| (reason.label(), self.bypass.of(*reason).get())).collect()
    }

    fn call_times(&self) -> Durations {
        self.upstream_call_times.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the governor's actions since the start.
    pub fn governor_actions(&self) -> Vec<(&'static str, u64)> {
        GovernorAction::ALL.iter().map(|action| (action.label(), self.governor_actions.of(*action).get())).collect()
    }

    /// Returns the figures of upstream calls since the start.
    pub fn upstream_figures(&self) -> UpstreamFigures {
        let inputs = self.upstream_call_inputs.metric();
        let inputs = inputs.get_histogram();
        UpstreamFigures {
            calls: CallOutcome::ALL.iter().map(|end| (end.label(), self.upstream_calls.of(*end).get())).collect(),
            latency_ms: self.call_times().percentiles(),
            retries: RetryReason::ALL.iter().map(|reason| self.upstream_retries.of(*reason).get()).sum(),
            mean_inputs_per_call: mean(inputs.get_sample_sum(), inputs.get_sample_count()),
            batch_sizes: buckets(inputs),
        }
    }

    pub(super) fn totals(&self) -> Totals {
        let counts = self.performance.counts();
        let (_, statements) = self.accounts.statements();
        Totals {
            requests: counts.requests,
            errors: counts.errors,
            latencies: counts.latencies,
            inputs: std::array::from_fn(|place| self.inputs_so_far(SourceLabel::ALL[place])),
            tokens_billed: statements.iter().map(|one| one.tokens_billed).sum(),
            tokens_saved: statements.iter().map(|one| one.tokens_saved).sum(),
            cost_billed: statements.iter().map(|one| one.cost_billed).sum(),
            cost_saved: statements.iter().map(|one| one.cost_saved).sum(),
            calls: std::array::from_fn(|place| self.upstream_calls.of(CallOutcome::ALL[place]).get()),
            call_times: self.call_times(),
            upstream_calls: self.upstream_call_inputs.get_sample_count(),
            upstream_inputs: whole(self.upstream_call_inputs.get_sample_sum()),
        }
    }

    pub(super) fn levels(&self) -> Levels {
        Levels {
            at_ms: self.performance.now_ms(),
            resident_bytes: u64::try_from(self.memory_resident.get()).unwrap_or_default(),
            breaker: BreakerState::from_value(self.breaker_state.get()).label(),
        }
    }
}

/// Converts Prometheus's cumulative buckets to separate ones.
fn buckets(inputs: &prometheus::proto::Histogram) -> Vec<Bucket> {
    let mut before = 0;
    let mut between = |upto: u64| upto.saturating_sub(std::mem::replace(&mut before, upto));
    let mut buckets: Vec<Bucket> = inputs
        .get_bucket()
        .iter()
        .filter(|bucket| bucket.upper_bound().is_finite())
        .map(|bucket| Bucket { le: Some(bucket.upper_bound()), calls: between(bucket.cumulative_count()) })
        .collect();
    buckets.push(Bucket { le: None, calls: between(inputs.get_sample_count()) });
    buckets
}

#[expect(clippy::cast_precision_loss, reason = "figures for people; exact up to 2^53")]
fn mean(sum: f64, count: u64) -> f64 {
    if count == 0 { 0.0 } else { sum / count as f64 }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a sum of counts, below 2^53")]
fn whole(sum: f64) -> u64 {
    sum as u64
}
