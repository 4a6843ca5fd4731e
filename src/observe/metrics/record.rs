//! Recording methods for the parts of the program, one per event.

use std::sync::PoisonError;
use std::time::Duration;

use prometheus::Histogram;

use super::Metrics;
use super::labels::{
    AnswerEvent, BreakerState, Bypass, CallOutcome, GovernorAction, Label, Outcome, Rejection, ReloadResult,
    RetryReason, Route, SourceLabel, SpanResult, Tier, TokenKind,
};
use super::recent::Ended;

/// Series of the duration histogram that exist from the start. Others are created with their first request, because
/// each adds 21 lines to every scrape.
const USUAL: &[(Route, Outcome)] = &[
    (Route::Embeddings, Outcome::Hit),
    (Route::Embeddings, Outcome::Partial),
    (Route::Embeddings, Outcome::Miss),
    (Route::Passthrough, Outcome::Forwarded),
];

/// Size of a tier at one point in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierLevels {
    /// Entries held.
    pub entries: u64,
    /// Bytes held.
    pub bytes: u64,
    /// Capacity in bytes.
    pub capacity_bytes: u64,
    /// Entries evicted to make room, since the start.
    pub evictions: u64,
}

impl Metrics {
    /// Records the end of a request on the public port.
    pub fn request(&self, ended: Ended) {
        let Ended { route, outcome, elapsed, .. } = ended;
        self.requests.of(route).of(outcome).inc();
        self.duration_of(route, outcome).observe(elapsed.as_secs_f64());
        self.performance.record(ended);
    }

    /// Records `n` inputs answered from `source`.
    pub fn inputs(&self, source: SourceLabel, n: u64) {
        self.inputs.of(source).add(n);
    }

    /// Records `n` tokens that the upstream charged.
    pub fn tokens_billed(&self, n: u64) {
        self.tokens.of(TokenKind::Billed).add(n);
    }

    /// Records `n` tokens that were not charged thanks to the cache.
    pub fn tokens_saved(&self, n: u64) {
        self.tokens.of(TokenKind::Saved).add(n);
    }

    /// Records a request that passed through uncached.
    pub fn bypass(&self, reason: Bypass) {
        self.bypass.of(reason).inc();
    }

    /// Records a request that vecho itself rejected.
    pub fn rejected(&self, reason: Rejection) {
        self.rejected.of(reason).inc();
    }

    /// Records the end of one attempt of an upstream call, which carried `inputs` of `requests` merged requests.
    pub fn upstream_call(&self, outcome: CallOutcome, elapsed: Duration, inputs: usize, requests: usize) {
        self.upstream_calls.of(outcome).inc();
        self.upstream_call_duration.observe(elapsed.as_secs_f64());
        self.upstream_call_times.lock().unwrap_or_else(PoisonError::into_inner).record(elapsed);
        self.upstream_call_inputs.observe(float(inputs));
        self.upstream_call_requests.observe(float(requests));
    }

    /// Records a retry of an upstream call.
    pub fn retry(&self, reason: RetryReason) {
        self.upstream_retries.of(reason).inc();
    }

    /// Records a new state of the breaker. A return to open after a failed probe counts as opening.
    pub fn breaker(&self, state: BreakerState) {
        if state == BreakerState::Open {
            self.breaker_opened.inc();
        }
        self.breaker_state.set(state.value());
    }

    /// Sets the size of a tier; for a hook of [`Metrics::on_scrape`].
    pub fn tier(&self, tier: Tier, levels: TierLevels) {
        self.cache_entries.of(tier).set(levels.entries);
        self.cache_bytes.of(tier).set(levels.bytes);
        self.cache_capacity.of(tier).set(levels.capacity_bytes);
        self.cache_evictions.of(tier).raise_to(levels.evictions);
    }

    /// Sets the state of a lower tier and its dropped writes; for a hook of [`Metrics::on_scrape`].
    pub fn lower_tier(&self, tier: Tier, up: bool, dropped: u64) {
        self.cache_tier_down.of(tier).set(u64::from(!up));
        self.cache_dropped.of(tier).raise_to(dropped);
    }

    /// Records a lookup in a lower tier.
    pub fn lookup(&self, tier: Tier, elapsed: Duration) {
        self.cache_lookup_duration.with_label_values(&[tier.label()]).observe(elapsed.as_secs_f64());
    }

    /// Records a stored reply.
    pub fn answer_stored(&self) {
        self.answers.of(AnswerEvent::Stored).inc();
    }

    /// Sets the number of cached replies served since the start; for a hook of [`Metrics::on_scrape`].
    pub fn answers_served(&self, n: u64) {
        self.answers.of(AnswerEvent::Served).raise_to(n);
    }

    /// Sets the number of requests in flight and the bytes of their bodies; for a hook of [`Metrics::on_scrape`].
    pub fn in_flight(&self, requests: usize, body_bytes: usize) {
        self.requests_in_flight.set(requests as u64);
        self.body_bytes_in_flight.set(body_bytes as u64);
    }

    /// Records an action of the governor.
    pub fn governor(&self, action: GovernorAction) {
        self.governor_actions.of(action).inc();
    }

    /// Records the result of `n` finished spans.
    pub fn spans(&self, result: SpanResult, n: usize) {
        self.trace_spans.of(result).add(n as u64);
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

    /// Returns the number of inputs answered from `source` so far.
    pub fn inputs_so_far(&self, source: SourceLabel) -> u64 {
        self.inputs.of(source).get()
    }

    pub(super) fn show_usual_durations(&self) {
        for (route, outcome) in USUAL {
            self.duration_of(*route, *outcome);
        }
        for tier in [Tier::Disk, Tier::Redis] {
            self.cache_lookup_duration.with_label_values(&[tier.label()]);
        }
    }

    fn duration_of(&self, route: Route, outcome: Outcome) -> &Histogram {
        let series = &self.request_duration[route.index()][outcome.index()];
        series.get_or_init(|| self.request_durations.with_label_values(&[route.label(), outcome.label()]))
    }
}

#[expect(clippy::cast_precision_loss, reason = "no call carries 2^53 inputs")]
fn float(n: usize) -> f64 {
    n as f64
}
