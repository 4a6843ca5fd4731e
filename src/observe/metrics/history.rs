//! Samples of recent activity: every two seconds for the last quarter of an hour, every minute for the last day.
//!
//! One task takes the samples; requests never take this lock.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::label::Label;
use super::labels::{CallOutcome, InputSource};
use super::latency::{Durations, Latencies, Percentiles};

/// Seconds between two samples.
pub const STEP_SECONDS: u64 = 2;
/// Seconds between two coarse samples.
pub const COARSE_STEP_SECONDS: u64 = 60;
/// A quarter of an hour of samples.
const MAX_FINE: usize = 450;
/// A day of coarse samples.
const MAX_COARSE: usize = 1_440;

/// Activity between two points in time.
#[derive(Clone, Debug, Serialize)]
pub struct HistorySample {
    /// End of the interval, in milliseconds since the epoch.
    pub at_ms: u64,
    /// Requests that ended.
    pub requests: u64,
    /// Requests that count as errors.
    pub errors: u64,
    /// Answered inputs by source.
    #[serde(serialize_with = "by_source")]
    pub inputs: [u64; InputSource::ALL.len()],
    /// Tokens that the upstream charged.
    pub tokens_billed: u64,
    /// Tokens that the upstream would have charged without the cache.
    pub tokens_saved: u64,
    /// Cost of the billed tokens.
    pub cost_billed: f64,
    /// Cost of the saved tokens without the cache.
    pub cost_saved: f64,
    /// Response times by outcome; `all` stands for all outcomes together.
    #[serde(serialize_with = "by_name")]
    pub latency_ms: Box<[(&'static str, Percentiles)]>,
    /// Calls to the upstream by outcome.
    #[serde(serialize_with = "by_call_outcome")]
    pub calls: [u64; CallOutcome::ALL.len()],
    /// Durations of these calls.
    pub call_ms: Percentiles,
    /// Calls to the upstream.
    pub upstream_calls: u64,
    /// Inputs in these calls.
    pub upstream_inputs: u64,
    /// Resident memory at the end of the interval.
    pub resident_bytes: u64,
    /// State of the breaker at the end of the interval.
    pub breaker: &'static str,
}

fn by_source<S: Serializer>(inputs: &[u64], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(InputSource::LABELS.iter().zip(inputs))
}

fn by_call_outcome<S: Serializer>(calls: &[u64], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(CallOutcome::LABELS.iter().zip(calls))
}

fn by_name<S: Serializer>(times: &[(&'static str, Percentiles)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(times.len()))?;
    for (name, times) in times {
        map.serialize_entry(name, times)?;
    }
    map.end()
}

/// Totals since the start, for the difference over an interval.
#[derive(Clone, Debug, Default)]
pub(super) struct Totals {
    pub(super) requests: u64,
    pub(super) errors: u64,
    pub(super) inputs: [u64; InputSource::ALL.len()],
    pub(super) tokens_billed: u64,
    pub(super) tokens_saved: u64,
    pub(super) cost_billed: f64,
    pub(super) cost_saved: f64,
    pub(super) latencies: Latencies,
    pub(super) calls: [u64; CallOutcome::ALL.len()],
    pub(super) call_times: Durations,
    pub(super) upstream_calls: u64,
    pub(super) upstream_inputs: u64,
}

/// State at the end of an interval.
#[derive(Clone, Copy, Debug)]
pub(super) struct Levels {
    pub(super) at_ms: u64,
    pub(super) resident_bytes: u64,
    pub(super) breaker: &'static str,
}

impl Totals {
    fn since(&self, earlier: &Self, levels: Levels) -> HistorySample {
        HistorySample {
            at_ms: levels.at_ms,
            requests: self.requests.saturating_sub(earlier.requests),
            errors: self.errors.saturating_sub(earlier.errors),
            inputs: std::array::from_fn(|place| self.inputs[place].saturating_sub(earlier.inputs[place])),
            tokens_billed: self.tokens_billed.saturating_sub(earlier.tokens_billed),
            tokens_saved: self.tokens_saved.saturating_sub(earlier.tokens_saved),
            cost_billed: (self.cost_billed - earlier.cost_billed).max(0.0),
            // Sums of floating-point numbers may decrease by a rounding error.
            cost_saved: (self.cost_saved - earlier.cost_saved).max(0.0),
            latency_ms: latencies(&self.latencies.since(&earlier.latencies)),
            calls: std::array::from_fn(|place| self.calls[place].saturating_sub(earlier.calls[place])),
            call_ms: self.call_times.since(&earlier.call_times).percentiles(),
            upstream_calls: self.upstream_calls.saturating_sub(earlier.upstream_calls),
            upstream_inputs: self.upstream_inputs.saturating_sub(earlier.upstream_inputs),
            resident_bytes: levels.resident_bytes,
            breaker: levels.breaker,
        }
    }
}

fn latencies(between: &Latencies) -> Box<[(&'static str, Percentiles)]> {
    let mut times = between.percentiles();
    // An interval without requests has no response times, so it gets no `all` entry either.
    if !times.is_empty() {
        times.push(("all", between.overall()));
    }
    times.into()
}

/// The samples, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// Samples every [`STEP_SECONDS`].
    pub fine: Vec<Arc<HistorySample>>,
    /// Samples every [`COARSE_STEP_SECONDS`].
    pub coarse: Vec<Arc<HistorySample>>,
}

#[derive(Debug, Default)]
pub(super) struct History(Mutex<Rings>);

#[derive(Debug, Default)]
struct Rings {
    fine: VecDeque<Arc<HistorySample>>,
    coarse: VecDeque<Arc<HistorySample>>,
    at_fine: Totals,
    at_coarse: Totals,
    steps: u64,
}

impl History {
    pub(super) fn note(&self, now: Totals, levels: Levels) -> Arc<HistorySample> {
        let mut rings = self.rings();
        let sample = Arc::new(now.since(&rings.at_fine, levels));
        keep(&mut rings.fine, Arc::clone(&sample), MAX_FINE);
        rings.steps += 1;
        if rings.steps.is_multiple_of(COARSE_STEP_SECONDS / STEP_SECONDS) {
            // A coarse sample is computed from the totals, because percentiles cannot be added.
            let coarse = Arc::new(now.since(&rings.at_coarse, levels));
            keep(&mut rings.coarse, coarse, MAX_COARSE);
            rings.at_coarse = now.clone();
        }
        // The next sample begins where this one ended.
        rings.at_fine = now;
        sample
    }

    pub(super) fn samples(&self) -> Samples {
        let rings = self.rings();
        Samples { fine: rings.fine.iter().cloned().collect(), coarse: rings.coarse.iter().cloned().collect() }
    }

    fn rings(&self) -> MutexGuard<'_, Rings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keep(ring: &mut VecDeque<Arc<HistorySample>>, sample: Arc<HistorySample>, most: usize) {
    if ring.len() == most {
        ring.pop_front();
    }
    ring.push_back(sample);
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::labels::{Outcome, Route};
    use super::super::recent::Ended;
    use super::super::registry::Metrics;
    use super::*;

    fn hit(metrics: &Metrics) {
        let elapsed = Duration::from_millis(1);
        metrics.requests.ended(Ended {
            route: Route::Embeddings,
            outcome: Outcome::Hit,
            status: None,
            begun: Instant::now(),
            elapsed,
            subject: None,
        });
        metrics.usage.inputs(InputSource::Memory, 2);
    }

    #[test]
    fn samples_add_up_to_the_totals() {
        let metrics = Metrics::new("0");
        for step in 0..90 {
            (0..step).for_each(|_| hit(&metrics));
            metrics.sample();
        }
        let Samples { fine, coarse } = metrics.samples();
        assert_eq!((fine.len(), coarse.len()), (90, 3));
        for samples in [fine, coarse] {
            assert_eq!(samples.iter().map(|sample| sample.requests).sum::<u64>(), 4_005);
            assert_eq!(samples.iter().map(|sample| sample.inputs[0]).sum::<u64>(), 8_010);
            let timed = samples.iter().flat_map(|sample| &sample.latency_ms);
            assert_eq!(timed.filter(|(name, _)| *name == "hit").map(|(_, times)| times.count).sum::<u64>(), 4_005);
        }
    }

    #[test]
    fn history_is_bounded() {
        let metrics = Metrics::new("0");
        for _ in 0..MAX_FINE + 10 {
            hit(&metrics);
            metrics.sample();
        }
        let fine = metrics.samples().fine;
        assert_eq!(fine.len(), MAX_FINE);
        assert_eq!(fine.iter().map(|sample| sample.requests).sum::<u64>(), MAX_FINE as u64);
    }

    #[test]
    fn an_interval_without_requests_has_no_latencies() {
        let metrics = Metrics::new("0");
        hit(&metrics);
        assert_eq!(metrics.sample().latency_ms.len(), 2);
        assert!(metrics.sample().latency_ms.is_empty());
    }

    #[test]
    fn a_sample_covers_the_time_since_the_previous_one() {
        let metrics = Metrics::new("0");
        let prices = [("savings.prices", "m=1")];
        metrics.accounts().reprice(&crate::config::Config::from_pairs(&prices).expect("it is legal").savings);
        let account = metrics.accounts().of("m", "", "m");
        for _ in 0..2 {
            account.count(1, 1_000_000, 3_000_000);
            metrics.upstream.call(CallOutcome::Ok, Duration::from_millis(5), 4, 1);
            let sample = metrics.sample();
            assert!((sample.cost_billed - 1.0).abs() < 1e-9 && (sample.cost_saved - 3.0).abs() < 1e-9, "{sample:?}");
            assert_eq!((sample.upstream_calls, sample.upstream_inputs, sample.call_ms.count), (1, 4, 1));
            assert_eq!(sample.calls.iter().sum::<u64>(), 1);
        }
    }

    #[test]
    fn coarse_samples_cover_the_last_day() {
        let history = History::default();
        let levels = |at_ms| Levels { at_ms, resident_bytes: 0, breaker: "closed" };
        let steps = COARSE_STEP_SECONDS / STEP_SECONDS * (MAX_COARSE as u64 + 3);
        for step in 1..=steps {
            history.note(Totals { requests: step, ..Totals::default() }, levels(step));
        }
        let coarse = history.samples().coarse;
        assert_eq!((coarse.len(), coarse.last().map(|sample| sample.at_ms)), (MAX_COARSE, Some(steps)));
        assert!(coarse.iter().all(|sample| sample.requests == COARSE_STEP_SECONDS / STEP_SECONDS));
    }
}
