//! Events of the cache as a whole: cached replies, purges, fetches in flight, changes of the model.

use super::catalogue;
use super::handles::{Counter, Gauge, PerLabel, Registrar};
use super::labels::{AnswerEvent, LeaseWait};

/// Metrics of the cache as a whole.
#[derive(Debug)]
pub struct CacheMetrics {
    answers: PerLabel<AnswerEvent, Counter>,
    lease_waits: PerLabel<LeaseWait, Counter>,
    /// Purges of the cache or a part of it by an operator.
    pub purges: Counter,
    /// Inputs whose entries an operator removed.
    pub forgotten: Counter,
    /// Keys with a fetch in flight.
    pub flights: Gauge,
    /// Changes of the model name in the upstream's responses.
    pub model_drifts: Counter,
}

impl CacheMetrics {
    pub(super) fn new(registrar: &Registrar<'_>) -> Self {
        Self {
            answers: registrar.counters(&catalogue::CACHE_ANSWERS),
            lease_waits: registrar.counters(&catalogue::LEASE_WAITS),
            purges: registrar.counter(&catalogue::CACHE_PURGES),
            forgotten: registrar.counter(&catalogue::CACHE_FORGOTTEN),
            flights: registrar.gauge(&catalogue::FLIGHTS),
            model_drifts: registrar.counter(&catalogue::MODEL_DRIFTS),
        }
    }

    /// Records inputs whose wait for another replica has ended.
    pub fn lease_waits(&self, end: LeaseWait, inputs: usize) {
        self.lease_waits.of(end).add(inputs as u64);
    }

    /// Records a stored reply.
    pub fn answer_stored(&self) {
        self.answers.of(AnswerEvent::Stored).inc();
    }

    /// Sets the number of cached replies served since the start; for a hook of
    /// [`on_scrape`](super::Metrics::on_scrape).
    pub fn answers_served(&self, n: u64) {
        self.answers.of(AnswerEvent::Served).raise_to(n);
    }
}
