//! Metrics: the catalogue, the handles that count, and the text for Prometheus.
//!
//! There is no global registry: [`Metrics::new`] creates one, and each part receives its own handles.

mod catalogue;
mod figures;
mod handles;
mod history;
mod incident;
mod incidents;
mod labels;
mod latency;
mod performance;
mod process;
mod recent;
mod record;
mod savings;

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use prometheus::{Histogram, HistogramVec, Registry, TEXT_FORMAT, TextEncoder};

pub use catalogue::{CATALOGUE, Family, Kind, LabelSet, catalogue_markdown};
pub use figures::{Bucket, UpstreamFigures};
pub use handles::{Counter, Entered, Gauge, PerLabel};
pub use history::{COARSE_STEP_SECONDS, STEP_SECONDS, Sample, Samples};
pub use incidents::{
    Affected, Incident, IncidentReport, IncidentState, Incidents, Instead, MAX_INCIDENTS, ModelReport,
};
pub use labels::{
    AnswerEvent, BreakerState, Bypass, CallOutcome, GovernorAction, Label, Outcome, Port, Rejection, ReloadResult,
    RetryReason, Route, SourceLabel, SpanResult, Tier, TokenKind,
};
pub use latency::Percentiles;
pub use performance::{Performance, PerformanceSnapshot, Seen};
pub use recent::{Ended, MAX_RECENT, Recent, RequestUsage};
pub use record::TierLevels;
pub use savings::{MAX_ACCOUNTS, UsageAccount, UsageAccounts, UsageLabels, UsageReport};

use handles::Registrar;
use history::History;
use latency::Durations;
use process::Process;

type ScrapeHook = Arc<dyn Fn(&Metrics) + Send + Sync>;

/// All metrics of one vecho, with their registry.
pub struct Metrics {
    registry: Registry,
    hooks: Mutex<Vec<ScrapeHook>>,
    /// Held while a scrape collects its figures.
    rendering: Mutex<()>,
    process: Process,
    performance: Performance,
    history: History,
    accounts: UsageAccounts,
    incidents: Incidents,
    requests: PerLabel<Route, PerLabel<Outcome, Counter>>,
    request_durations: HistogramVec,
    request_duration: [[OnceLock<Histogram>; Outcome::ALL.len()]; Route::ALL.len()],
    inputs: PerLabel<SourceLabel, Counter>,
    tokens: PerLabel<TokenKind, Counter>,
    bypass: PerLabel<Bypass, Counter>,
    rejected: PerLabel<Rejection, Counter>,
    upstream_calls: PerLabel<CallOutcome, Counter>,
    upstream_call_duration: Histogram,
    /// The same durations with percentiles.
    upstream_call_times: Mutex<Durations>,
    upstream_call_inputs: Histogram,
    upstream_call_requests: Histogram,
    upstream_retries: PerLabel<RetryReason, Counter>,
    breaker_state: Gauge,
    breaker_opened: Counter,
    cache_entries: PerLabel<Tier, Gauge>,
    cache_bytes: PerLabel<Tier, Gauge>,
    cache_capacity: PerLabel<Tier, Gauge>,
    cache_evictions: PerLabel<Tier, Counter>,
    cache_dropped: PerLabel<Tier, Counter>,
    cache_tier_down: PerLabel<Tier, Gauge>,
    cache_lookup_duration: HistogramVec,
    answers: PerLabel<AnswerEvent, Counter>,
    governor_actions: PerLabel<GovernorAction, Counter>,
    trace_spans: PerLabel<SpanResult, Counter>,
    config_reloads: PerLabel<ReloadResult, Counter>,
    config_current: Gauge,
    ready: Gauge,
    requests_in_flight: Gauge,
    body_bytes_in_flight: Gauge,
    /// Upstream calls that were split in two because they were too large.
    pub upstream_splits: Counter,
    /// Rejected upstream calls whose requests were sent again separately.
    pub upstream_isolations: Counter,
    /// Upstream calls in flight.
    pub upstream_in_flight: Gauge,
    /// Inputs that wait for a permit.
    pub upstream_queued_inputs: Gauge,
    /// Purges of the cache or a part of it by an operator.
    pub cache_purges: Counter,
    /// Keys with a fetch in flight.
    pub flights: Gauge,
    /// Bytes reserved for the vectors of requests in flight.
    pub vector_bytes_in_flight: Gauge,
    /// Changes of the model name in the upstream's responses.
    pub model_drifts: Counter,
    /// Callers whose bearer tokens rotate.
    pub rotating_credentials: Counter,
    /// Open connections, by port.
    pub connections: PerLabel<Port, Gauge>,
    /// Connections closed because too many were open, by port.
    pub connections_rejected: PerLabel<Port, Counter>,
    /// Resident memory at the governor's last check.
    pub memory_resident: Gauge,
    /// Memory limit of the governor.
    pub memory_limit: Gauge,
}

impl Metrics {
    /// Creates all metrics at zero, except those whose normal value is not zero.
    pub fn new(version: &str) -> Arc<Self> {
        let registry = Registry::new();
        let metrics = Self::stocked(registry.clone(), &Registrar(&registry));
        Registrar(&registry).info(&catalogue::BUILD_INFO, version);
        metrics.show_usual_durations();
        metrics.config_current.set(1);
        Arc::new(metrics)
    }

    fn stocked(registry: Registry, shelf: &Registrar<'_>) -> Self {
        Self {
            registry,
            hooks: Mutex::default(),
            rendering: Mutex::default(),
            process: Process::new(shelf),
            performance: Performance::new(),
            history: History::default(),
            accounts: UsageAccounts::new(shelf),
            incidents: Incidents::new(shelf),
            requests: shelf.counters_by_two(&catalogue::REQUESTS),
            request_durations: shelf.histograms(&catalogue::REQUEST_DURATION),
            request_duration: Default::default(),
            inputs: shelf.counters(&catalogue::INPUTS),
            tokens: shelf.counters(&catalogue::TOKENS),
            bypass: shelf.counters(&catalogue::BYPASS),
            rejected: shelf.counters(&catalogue::REJECTED),
            upstream_calls: shelf.counters(&catalogue::UPSTREAM_CALLS),
            upstream_call_duration: shelf.histogram(&catalogue::UPSTREAM_CALL_DURATION),
            upstream_call_times: Mutex::default(),
            upstream_call_inputs: shelf.histogram(&catalogue::UPSTREAM_CALL_INPUTS),
            upstream_call_requests: shelf.histogram(&catalogue::UPSTREAM_CALL_REQUESTS),
            upstream_retries: shelf.counters(&catalogue::UPSTREAM_RETRIES),
            breaker_state: shelf.gauge(&catalogue::BREAKER_STATE),
            breaker_opened: shelf.counter(&catalogue::BREAKER_OPENED),
            cache_entries: shelf.gauges(&catalogue::CACHE_ENTRIES),
            cache_bytes: shelf.gauges(&catalogue::CACHE_BYTES),
            cache_capacity: shelf.gauges(&catalogue::CACHE_CAPACITY),
            cache_evictions: shelf.counters(&catalogue::CACHE_EVICTIONS),
            cache_dropped: shelf.counters(&catalogue::CACHE_DROPPED),
            cache_tier_down: shelf.gauges(&catalogue::CACHE_TIER_DOWN),
            cache_lookup_duration: shelf.histograms(&catalogue::CACHE_LOOKUP_DURATION),
            answers: shelf.counters(&catalogue::CACHE_ANSWERS),
            governor_actions: shelf.counters(&catalogue::GOVERNOR_ACTIONS),
            trace_spans: shelf.counters(&catalogue::TRACE_SPANS),
            config_reloads: shelf.counters(&catalogue::CONFIG_RELOADS),
            config_current: shelf.gauge(&catalogue::CONFIG_CURRENT),
            ready: shelf.gauge(&catalogue::READY),
            requests_in_flight: shelf.gauge(&catalogue::REQUESTS_IN_FLIGHT),
            body_bytes_in_flight: shelf.gauge(&catalogue::BODY_BYTES_IN_FLIGHT),
            upstream_splits: shelf.counter(&catalogue::UPSTREAM_SPLITS),
            upstream_isolations: shelf.counter(&catalogue::UPSTREAM_ISOLATIONS),
            upstream_in_flight: shelf.gauge(&catalogue::UPSTREAM_IN_FLIGHT),
            upstream_queued_inputs: shelf.gauge(&catalogue::UPSTREAM_QUEUED_INPUTS),
            cache_purges: shelf.counter(&catalogue::CACHE_PURGES),
            flights: shelf.gauge(&catalogue::FLIGHTS),
            vector_bytes_in_flight: shelf.gauge(&catalogue::VECTOR_BYTES_IN_FLIGHT),
            model_drifts: shelf.counter(&catalogue::MODEL_DRIFTS),
            rotating_credentials: shelf.counter(&catalogue::ROTATING_CREDENTIALS),
            connections: shelf.gauges(&catalogue::CONNECTIONS),
            connections_rejected: shelf.counters(&catalogue::CONNECTIONS_REJECTED),
            memory_resident: shelf.gauge(&catalogue::MEMORY_RESIDENT),
            memory_limit: shelf.gauge(&catalogue::MEMORY_LIMIT),
        }
    }

    /// Registers a hook that is called before every scrape, for values that are measured only then.
    pub fn on_scrape(&self, hook: Box<dyn Fn(&Self) + Send + Sync>) {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::from(hook));
    }

    /// Returns the content type and the text of a scrape.
    pub fn render(&self) -> (&'static str, String) {
        // Scrapes run one at a time: two concurrent ones would both raise a counter by the same amount.
        let _turn = self.rendering.lock().unwrap_or_else(PoisonError::into_inner);
        // The hooks run without the hooks' lock, so a hook may register another hook.
        let hooks = self.hooks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for hook in &hooks {
            hook(self);
        }
        self.process.refresh();
        self.accounts.show_costs();
        let text = TextEncoder::new().encode_to_string(&self.registry.gather());
        (TEXT_FORMAT, text.expect("the catalogue must render"))
    }

    /// Returns response times, rate and errors of the public port.
    pub fn performance(&self) -> &Performance {
        &self.performance
    }

    /// Returns the incidents.
    pub const fn incidents(&self) -> &Incidents {
        &self.incidents
    }

    /// Returns tokens and costs by model and namespace.
    pub const fn accounts(&self) -> &UsageAccounts {
        &self.accounts
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
