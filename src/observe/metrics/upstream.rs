//! Embeddings calls to the upstream, and the breaker in front of it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::Histogram;
use prometheus::core::Metric;
use serde::Serialize;

use super::catalogue;
use super::handles::{Counter, Gauge, PerLabel, Registrar};
use super::labels::{BreakerState, CallOutcome, RetryReason};
use super::latency::{Durations, Percentiles};

/// Metrics of upstream calls.
#[derive(Debug)]
pub struct UpstreamMetrics {
    calls: PerLabel<CallOutcome, Counter>,
    call_duration: Histogram,
    /// The same durations with percentiles.
    call_times: Mutex<Durations>,
    call_inputs: Histogram,
    call_requests: Histogram,
    retries: PerLabel<RetryReason, Counter>,
    /// Calls that were split in two because they were too large.
    pub splits: Counter,
    /// Rejected calls whose requests were sent again separately.
    pub isolations: Counter,
    /// Calls in flight.
    pub in_flight: Gauge,
    /// Inputs that wait for a permit.
    pub queued_inputs: Gauge,
    /// The breaker in front of the upstream.
    pub breaker: BreakerMetrics,
}

/// Metrics of the breaker.
#[derive(Debug)]
pub struct BreakerMetrics {
    state: Gauge,
    opened: Counter,
}

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

impl UpstreamMetrics {
    pub(super) fn new(registrar: &Registrar<'_>) -> Self {
        Self {
            calls: registrar.counters(&catalogue::UPSTREAM_CALLS),
            call_duration: registrar.histogram(&catalogue::UPSTREAM_CALL_DURATION),
            call_times: Mutex::default(),
            call_inputs: registrar.histogram(&catalogue::UPSTREAM_CALL_INPUTS),
            call_requests: registrar.histogram(&catalogue::UPSTREAM_CALL_REQUESTS),
            retries: registrar.counters(&catalogue::UPSTREAM_RETRIES),
            splits: registrar.counter(&catalogue::UPSTREAM_SPLITS),
            isolations: registrar.counter(&catalogue::UPSTREAM_ISOLATIONS),
            in_flight: registrar.gauge(&catalogue::UPSTREAM_IN_FLIGHT),
            queued_inputs: registrar.gauge(&catalogue::UPSTREAM_QUEUED_INPUTS),
            breaker: BreakerMetrics {
                state: registrar.gauge(&catalogue::BREAKER_STATE),
                opened: registrar.counter(&catalogue::BREAKER_OPENED),
            },
        }
    }

    /// Records the end of one attempt of a call, which carried `inputs` of `requests` merged requests.
    pub fn call(&self, outcome: CallOutcome, elapsed: Duration, inputs: usize, requests: usize) {
        self.calls.of(outcome).inc();
        self.call_duration.observe(elapsed.as_secs_f64());
        self.call_times.lock().unwrap_or_else(PoisonError::into_inner).record(elapsed);
        // Sum and count of this histogram also serve the mean and the history.
        self.call_inputs.observe(float(inputs));
        self.call_requests.observe(float(requests));
    }

    /// Records a retry of a call.
    pub fn retry(&self, reason: RetryReason) {
        self.retries.of(reason).inc();
    }

    /// Returns the figures of calls since the start.
    pub fn figures(&self) -> UpstreamFigures {
        let inputs = self.call_inputs.metric();
        let inputs = inputs.get_histogram();
        UpstreamFigures {
            calls: CallOutcome::ALL.iter().map(|end| (end.label(), self.calls_so_far(*end))).collect(),
            latency_ms: self.call_times().percentiles(),
            retries: RetryReason::ALL.iter().map(|reason| self.retries.of(*reason).get()).sum(),
            mean_inputs_per_call: mean(inputs.get_sample_sum(), inputs.get_sample_count()),
            batch_sizes: buckets(inputs),
        }
    }

    pub(super) fn calls_so_far(&self, outcome: CallOutcome) -> u64 {
        self.calls.of(outcome).get()
    }

    pub(super) fn call_times(&self) -> Durations {
        self.call_times.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the number of calls so far and of the inputs in them.
    pub(super) fn sizes(&self) -> (u64, u64) {
        (self.call_inputs.get_sample_count(), whole(self.call_inputs.get_sample_sum()))
    }
}

impl BreakerMetrics {
    /// Records a new state. A return to open after a failed probe counts as opening.
    pub fn set(&self, state: BreakerState) {
        if state == BreakerState::Open {
            self.opened.inc();
        }
        self.state.set(state.value());
    }

    /// Returns the state.
    pub fn state(&self) -> BreakerState {
        BreakerState::from_value(self.state.get())
    }
}

/// Converts Prometheus's cumulative buckets to separate ones.
fn buckets(inputs: &prometheus::proto::Histogram) -> Vec<Bucket> {
    let mut before = 0;
    // A bucket of its own is the difference to the bound before.
    let mut between = |upto: u64| upto.saturating_sub(std::mem::replace(&mut before, upto));
    let mut buckets: Vec<Bucket> = inputs
        .get_bucket()
        .iter()
        // The unbounded bucket is added below from the total count.
        .filter(|bucket| bucket.upper_bound().is_finite())
        .map(|bucket| Bucket { le: Some(bucket.upper_bound()), calls: between(bucket.cumulative_count()) })
        .collect();
    buckets.push(Bucket { le: None, calls: between(inputs.get_sample_count()) });
    buckets
}

#[expect(clippy::cast_precision_loss, reason = "no call carries 2^53 inputs")]
fn float(n: usize) -> f64 {
    n as f64
}

#[expect(clippy::cast_precision_loss, reason = "figures for people; exact up to 2^53")]
fn mean(sum: f64, count: u64) -> f64 {
    if count == 0 { 0.0 } else { sum / count as f64 }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a sum of counts, below 2^53")]
fn whole(sum: f64) -> u64 {
    sum as u64
}
