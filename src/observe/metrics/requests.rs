//! Requests: how they end, how long they take, and what is in flight.

use std::sync::OnceLock;

use prometheus::{Histogram, HistogramVec};

use super::catalogue;
use super::handles::{Counter, Gauge, PerLabel, Registrar};
use super::label::Label;
use super::labels::{AnswerCoding, Bypass, Outcome, Rejection, Route, TokenProof};
use super::performance::Performance;
use super::recent::Ended;

/// Series of the duration histogram that exist from the start. Others are created with their first request, because
/// each adds 21 lines to every scrape.
const USUAL: &[(Route, Outcome)] = &[
    (Route::Embeddings, Outcome::Hit),
    (Route::Embeddings, Outcome::Partial),
    (Route::Embeddings, Outcome::Miss),
    (Route::Passthrough, Outcome::Forwarded),
];

/// Metrics of requests.
#[derive(Debug)]
pub struct RequestMetrics {
    ended: PerLabel<Route, PerLabel<Outcome, Counter>>,
    durations: HistogramVec,
    // Handles are resolved on first use, so an unusual series without requests is not exported.
    duration: [[OnceLock<Histogram>; Outcome::ALL.len()]; Route::ALL.len()],
    bypass: PerLabel<Bypass, Counter>,
    rejected: PerLabel<Rejection, Counter>,
    compressed: PerLabel<AnswerCoding, Counter>,
    in_flight: Gauge,
    body_bytes_in_flight: Gauge,
    /// Bytes reserved for the vectors of requests in flight.
    pub vector_bytes_in_flight: Gauge,
    /// Callers whose bearer tokens rotate.
    pub rotating_credentials: Counter,
    token_proofs: PerLabel<TokenProof, Counter>,
    pub(super) performance: Performance,
}

impl RequestMetrics {
    pub(super) fn new(registrar: &Registrar<'_>) -> Self {
        let metrics = Self {
            ended: registrar.counters_by_two(&catalogue::REQUESTS),
            durations: registrar.histograms(&catalogue::REQUEST_DURATION),
            duration: Default::default(),
            bypass: registrar.counters(&catalogue::BYPASS),
            rejected: registrar.counters(&catalogue::REJECTED),
            compressed: registrar.counters(&catalogue::COMPRESSED),
            in_flight: registrar.gauge(&catalogue::REQUESTS_IN_FLIGHT),
            body_bytes_in_flight: registrar.gauge(&catalogue::BODY_BYTES_IN_FLIGHT),
            vector_bytes_in_flight: registrar.gauge(&catalogue::VECTOR_BYTES_IN_FLIGHT),
            rotating_credentials: registrar.counter(&catalogue::ROTATING_CREDENTIALS),
            token_proofs: registrar.counters(&catalogue::TOKEN_PROOFS),
            performance: Performance::new(),
        };
        for (route, outcome) in USUAL {
            metrics.duration_of(*route, *outcome);
        }
        metrics
    }

    /// Records the end of a request on the public port.
    pub fn ended(&self, ended: Ended) {
        let Ended { route, outcome, elapsed, .. } = ended;
        self.ended.of(route).of(outcome).inc();
        self.duration_of(route, outcome).observe(elapsed.as_secs_f64());
        self.performance.record(ended);
    }

    /// Records a request that passed through uncached.
    pub fn bypass(&self, reason: Bypass) {
        self.bypass.of(reason).inc();
    }

    /// Records the upstream's verdict on a new bearer token.
    pub fn token_proof(&self, proof: TokenProof) {
        self.token_proofs.of(proof).inc();
    }

    /// Records a request that vecho itself rejected.
    pub fn rejected(&self, reason: Rejection) {
        self.rejected.of(reason).inc();
    }

    /// Records an answer that is sent in a content coding.
    pub fn compressed(&self, coding: AnswerCoding) {
        self.compressed.of(coding).inc();
    }

    /// Sets the number of requests in flight and the bytes of their bodies; for a hook of
    /// [`on_scrape`](super::Metrics::on_scrape).
    pub fn in_flight(&self, requests: usize, body_bytes: usize) {
        self.in_flight.set(requests as u64);
        self.body_bytes_in_flight.set(body_bytes as u64);
    }

    /// Returns requests on the public port since the start, by outcome.
    pub fn by_outcome(&self) -> Vec<(&'static str, u64)> {
        let sum = |outcome| Route::ALL.iter().map(|route| self.ended.of(*route).of(outcome).get()).sum();
        Outcome::ALL.iter().map(|outcome| (outcome.label(), sum(*outcome))).collect()
    }

    /// Returns embeddings requests since the start that passed through uncached, by reason.
    pub fn bypasses_by_reason(&self) -> Vec<(&'static str, u64)> {
        Bypass::ALL.iter().map(|reason| (reason.label(), self.bypass.of(*reason).get())).collect()
    }

    fn duration_of(&self, route: Route, outcome: Outcome) -> &Histogram {
        let series = &self.duration[route.index()][outcome.index()];
        series.get_or_init(|| self.durations.with_label_values(&[route.label(), outcome.label()]))
    }
}
