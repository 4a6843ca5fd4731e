//! Response times by outcome with little memory: a histogram is allocated with the first request of its outcome.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::label::Label;
use super::labels::Outcome;

const LOWEST_US: u64 = 1;
// One hour in microseconds. Longer times are recorded as one hour.
const HIGHEST_US: u64 = 3_600_000_000;
/// A precision of one percent is sufficient for a chart and takes a tenth of the memory of three digits.
const SIGNIFICANT_DIGITS: u8 = 2;

/// Percentiles of response times, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// Number of samples.
    pub count: u64,
    /// Median.
    #[serde(rename = "p50")]
    pub p50_ms: f64,
    /// 95th percentile.
    #[serde(rename = "p95")]
    pub p95_ms: f64,
    /// 99th percentile.
    #[serde(rename = "p99")]
    pub p99_ms: f64,
}

/// Durations of one kind. Memory is allocated with the first one.
#[derive(Clone, Debug, Default)]
pub(super) struct Durations(Option<Box<Histogram<u64>>>);

impl Durations {
    pub(super) fn record(&mut self, elapsed: Duration) {
        let times = self.0.get_or_insert_with(|| Box::new(empty()));
        times.saturating_record(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX));
    }

    /// Returns the durations recorded since `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        // Histograms cannot be negative, so the earlier one is subtracted from a copy of the later one.
        let mut difference = self.clone();
        if let (Some(later), Some(earlier)) = (&mut difference.0, &earlier.0) {
            later.subtract(&**earlier).expect("a histogram must not lose what it held");
        }
        difference
    }

    pub(super) fn percentiles(&self) -> Percentiles {
        self.0.as_deref().filter(|times| !times.is_empty()).map(summary).unwrap_or_default()
    }
}

/// Response times by outcome.
#[derive(Clone, Debug, Default)]
pub(super) struct Latencies([Option<Box<Histogram<u64>>>; Outcome::ALL.len()]);

impl Latencies {
    pub(super) fn record(&mut self, outcome: Outcome, elapsed: Duration) {
        let times = self.0[outcome.index()].get_or_insert_with(|| Box::new(empty()));
        times.saturating_record(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX));
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (sum, other) in self.0.iter_mut().zip(&other.0) {
            if let Some(other) = other {
                sum.get_or_insert_with(|| Box::new(empty())).add(&**other).expect("histograms must have equal bounds");
            }
        }
    }

    /// Returns the response times recorded since `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let mut difference = self.clone();
        for (later, earlier) in difference.0.iter_mut().zip(&earlier.0) {
            if let (Some(later), Some(earlier)) = (later, earlier) {
                later.subtract(&**earlier).expect("a histogram must not lose what it held");
            }
        }
        difference
    }

    /// Returns the percentiles of each outcome that has occurred.
    pub(super) fn percentiles(&self) -> Vec<(&'static str, Percentiles)> {
        let seen = Outcome::ALL.iter().zip(&self.0).filter_map(|(outcome, times)| Some((outcome, times.as_deref()?)));
        seen.filter(|(_, times)| !times.is_empty()).map(|(outcome, times)| (outcome.label(), summary(times))).collect()
    }

    /// Returns the percentiles of all outcomes together.
    pub(super) fn overall(&self) -> Percentiles {
        // Percentiles cannot be averaged, so the histograms are merged.
        let mut all = empty();
        for times in self.0.iter().flatten() {
            all.add(&**times).expect("histograms must have equal bounds");
        }
        summary(&all)
    }
}

fn empty() -> Histogram<u64> {
    let times = Histogram::new_with_bounds(LOWEST_US, HIGHEST_US, SIGNIFICANT_DIGITS);
    times.expect("the bounds of the histogram must be valid")
}

fn summary(times: &Histogram<u64>) -> Percentiles {
    let quantile_ms = |quantile| milliseconds(times.value_at_quantile(quantile));
    Percentiles { count: times.len(), p50_ms: quantile_ms(0.50), p95_ms: quantile_ms(0.95), p99_ms: quantile_ms(0.99) }
}

#[expect(clippy::cast_precision_loss, reason = "the histogram ends at one hour")]
fn milliseconds(us: u64) -> f64 {
    us as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(outcome: Outcome, each_ms: impl Iterator<Item = u64>) -> Latencies {
        let mut latencies = Latencies::default();
        each_ms.for_each(|ms| latencies.record(outcome, Duration::from_millis(ms)));
        latencies
    }

    fn near(actual: f64, expected: f64) -> bool {
        (actual - expected).abs() <= expected * 0.01
    }

    #[test]
    fn an_interval_has_its_own_percentiles() {
        let earlier = times(Outcome::Hit, 1000..2000);
        let mut later = earlier.clone();
        later.add(&times(Outcome::Hit, 1..=100));
        let (label, between) = later.since(&earlier).percentiles()[0];
        assert_eq!((label, between.count), ("hit", 100));
        assert!(near(between.p50_ms, 50.0) && near(between.p95_ms, 95.0) && near(between.p99_ms, 99.0), "{between:?}");
    }

    #[test]
    fn latencies_are_kept_by_outcome_and_in_total() {
        let mut both = times(Outcome::Hit, 1..=1);
        both.add(&times(Outcome::Miss, 100..=100));
        let seen: Vec<_> = both.percentiles().iter().map(|(label, times)| (*label, times.count)).collect();
        assert_eq!(seen, [("hit", 1), ("miss", 1)]);
        assert_eq!(both.overall().count, 2);
        assert!(near(both.overall().p99_ms, 100.0));
    }

    #[test]
    fn durations_of_an_interval_have_their_own_percentiles() {
        let mut earlier = Durations::default();
        assert_eq!(earlier.percentiles(), Percentiles::default());
        earlier.record(Duration::from_secs(1));
        let mut later = earlier.clone();
        later.record(Duration::from_millis(10));
        let between = later.since(&earlier).percentiles();
        assert!(between.count == 1 && near(between.p99_ms, 10.0), "{between:?}");
        assert_eq!(later.since(&later).percentiles(), Percentiles::default());
    }

    #[test]
    fn outcomes_without_requests_are_not_shown() {
        let earlier = times(Outcome::Hit, 1..=1);
        assert_eq!(earlier.since(&earlier).percentiles(), []);
        assert_eq!(earlier.since(&earlier).overall(), Percentiles::default());
    }
}
