//! Figures for an overview: number of requests, response times and errors.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;

use super::labels::Outcome;
use super::latency::{Latencies, Percentiles};
use super::recent::{Ended, MAX_RECENT, Recent, Ring};

/// Window of the request rate, in seconds.
const WINDOW_SECONDS: u64 = 60;
const WINDOW_SLOTS: usize = 60;
const LOWEST_US: u64 = 1;
const HIGHEST_US: u64 = 3_600_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;
/// A worker that finds a shard locked tries the next one, so a recording rarely waits.
const SHARDS: usize = 8;

/// Response times, rate and errors of the public port since the start. A recording costs one uncontended lock.
#[derive(Debug)]
pub struct Performance {
    started: Instant,
    started_ms: u64,
    shards: [Mutex<Option<PerformanceShard>>; SHARDS],
}

/// Figures at one point in time; times in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PerformanceSnapshot {
    /// Time since the start.
    pub uptime_seconds: f64,
    /// Requests answered since the start.
    pub total_requests: u64,
    /// Mean response time since the start.
    pub avg_response_time_ms: f64,
    /// Mean rate over the last 60 seconds, or since the start if that is shorter.
    pub requests_per_second: f64,
    /// Share of requests since the start that ended in an error, 0 to 1.
    pub error_rate: f64,
    /// Share of errors over the last 60 seconds, for the current state of the service.
    pub recent_error_rate: f64,
    /// Number of requests in the last 60 seconds, the base of `recent_error_rate`.
    pub recent_requests: u64,
    /// Longest response time since the start.
    pub max_ms: f64,
    /// Median response time since the start.
    pub p50_ms: f64,
    /// 95th percentile of response times since the start.
    pub p95_ms: f64,
    /// 99th percentile of response times since the start.
    pub p99_ms: f64,
}

impl Default for Performance {
    fn default() -> Self {
        Self::new()
    }
}

impl Performance {
    /// Starts to count now.
    pub fn new() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let shards = std::array::from_fn(|_| Mutex::new(None));
        Self { started: Instant::now(), started_ms: whole_ms(since_epoch), shards }
    }

    /// Counts one answered request.
    pub fn record(&self, ended: Ended) {
        let at = ended.begun + ended.elapsed;
        self.record_at(at.saturating_duration_since(self.started), ended);
    }

    /// Returns the start of the counts, in milliseconds since the epoch.
    pub const fn started_ms(&self) -> u64 {
        self.started_ms
    }

    /// Returns the time for samples and recent requests, in milliseconds since the epoch.
    pub fn now_ms(&self) -> u64 {
        // The monotonic clock keeps samples in order if the system's clock is set.
        self.started_ms + whole_ms(self.started.elapsed())
    }

    /// Returns percentiles since the start for each outcome that has occurred.
    pub fn by_outcome(&self) -> Vec<(&'static str, Percentiles)> {
        self.counts().latencies.percentiles()
    }

    /// Returns the latest requests, newest first, without those that `seen` already covers. Updates `seen`.
    pub fn recent(&self, seen: &mut Seen) -> Vec<Recent> {
        let mut found = Vec::new();
        // Each shard has its own position, because shards number their requests independently.
        for (place, (shard, seen)) in self.shards.iter().zip(&mut seen.0).enumerate() {
            let new = hold(shard).as_ref().map_or_else(Vec::new, |shard| shard.recent.after(seen));
            // Each shard has its own numbers, so the shard becomes part of the id.
            found.extend(new.into_iter().map(|(number, at, ended)| (number * SHARDS as u64 + place as u64, at, ended)));
        }
        found.sort_by_key(|(_, at, _)| std::cmp::Reverse(*at));
        found.truncate(MAX_RECENT);
        found.into_iter().map(|(id, at, ended)| Recent::new(id, self.started_ms + whole_ms(at), ended)).collect()
    }

    /// Returns the totals since the start, for samples.
    pub(super) fn counts(&self) -> RequestTotals {
        let mut sum = RequestTotals::default();
        for shard in &self.shards {
            if let Some(shard) = hold(shard).as_ref() {
                sum.requests += shard.total;
                sum.errors += shard.errors;
                sum.latencies.add(&shard.latencies);
            }
        }
        sum
    }

    /// Returns the current figures.
    pub fn snapshot(&self) -> PerformanceSnapshot {
        self.snapshot_at(self.started.elapsed())
    }

    fn record_at(&self, now: Duration, ended: Ended) {
        let mut shard = self.free_shard();
        shard.get_or_insert_with(PerformanceShard::new).record(now, ended);
    }

    /// Returns the first unlocked shard. A shard is allocated only under contention, so memory stays small.
    fn free_shard(&self) -> MutexGuard<'_, Option<PerformanceShard>> {
        let free = self.shards.iter().find_map(|shard| shard.try_lock().ok());
        // If all shards are in use, a wait for any of them is as good.
        free.unwrap_or_else(|| hold(&self.shards[0]))
    }

    fn snapshot_at(&self, now: Duration) -> PerformanceSnapshot {
        // The shards are merged into an empty one, so no two of them are locked at the same time.
        let mut sum = PerformanceShard::new();
        for shard in &self.shards {
            if let Some(shard) = hold(shard).as_ref() {
                sum.absorb(shard, now.as_secs());
            }
        }
        sum.summary(now)
    }
}

/// Locks a shard. A panic during a recording loses at most one request, so a poisoned lock remains usable.
fn hold(shard: &Mutex<Option<PerformanceShard>>) -> MutexGuard<'_, Option<PerformanceShard>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns true if a request counts in the error rate. Of the requests that vecho rejects, only those that exceed its
/// capacity count: an invalid header or body is the client's fault.
fn is_error(ended: &Ended) -> bool {
    let is_the_clients = ended.outcome == Outcome::Rejected && ended.status.is_some_and(|status| status < 500);
    ended.outcome.is_error() && !is_the_clients
}

/// Position up to which a reader has received the recent requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen([u64; SHARDS]);

/// Totals since the start.
#[derive(Debug, Default)]
pub(super) struct RequestTotals {
    pub(super) requests: u64,
    pub(super) errors: u64,
    pub(super) latencies: Latencies,
}

#[derive(Debug)]
struct PerformanceShard {
    times_us: Histogram<u64>,
    total: u64,
    errors: u64,
    sum: Duration,
    max: Duration,
    latencies: Latencies,
    recent: Ring,
    /// One slot per second of the last minute, as a ring.
    seconds: [Second; WINDOW_SLOTS],
}

/// Requests that ended in one second.
#[derive(Clone, Copy, Debug, Default)]
struct Second {
    /// The second, counted from the start.
    at: u64,
    requests: u64,
    errors: u64,
}

impl PerformanceShard {
    fn new() -> Self {
        let times_us = Histogram::new_with_bounds(LOWEST_US, HIGHEST_US, SIGNIFICANT_DIGITS)
            .expect("the bounds of the histogram must be valid");
        let (sum, max) = (Duration::ZERO, Duration::ZERO);
        let (latencies, recent, seconds) = (Latencies::default(), Ring::new(), [Second::default(); WINDOW_SLOTS]);
        Self { times_us, total: 0, errors: 0, sum, max, latencies, recent, seconds }
    }

    fn record(&mut self, now: Duration, ended: Ended) {
        let (elapsed, is_error) = (ended.elapsed, is_error(&ended));
        self.times_us.saturating_record(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX));
        self.total += 1;
        self.errors += u64::from(is_error);
        self.sum = self.sum.saturating_add(elapsed);
        self.max = self.max.max(elapsed);
        self.count(Second { at: now.as_secs(), requests: 1, errors: u64::from(is_error) });
        self.latencies.record(ended.outcome, elapsed);
        self.recent.push(now, ended);
    }

    fn count(&mut self, second: Second) {
        let slot = &mut self.seconds[usize::try_from(second.at % WINDOW_SECONDS).unwrap_or_default()];
        // The slot holds an older second, since the ring has gone round.
        if slot.at != second.at {
            *slot = Second { at: second.at, ..Second::default() };
        }
        slot.requests += second.requests;
        slot.errors += second.errors;
    }

    fn absorb(&mut self, other: &Self, now_second: u64) {
        self.times_us.add(&other.times_us).expect("shards must have equal bounds");
        self.total += other.total;
        self.errors += other.errors;
        self.sum = self.sum.saturating_add(other.sum);
        self.max = self.max.max(other.max);
        // Slots of seconds that passed without a request still hold data from before the window.
        for second in other.seconds.iter().filter(|second| is_recent(second.at, now_second)) {
            self.count(*second);
        }
    }

    fn summary(&self, now: Duration) -> PerformanceSnapshot {
        let recent: u64 = self.seconds.iter().map(|second| second.requests).sum();
        let recent_errors: u64 = self.seconds.iter().map(|second| second.errors).sum();
        PerformanceSnapshot {
            uptime_seconds: now.as_secs_f64(),
            total_requests: self.total,
            avg_response_time_ms: ratio(self.sum.as_secs_f64() * 1000.0, self.total),
            requests_per_second: float(recent) / window_seconds(now),
            error_rate: ratio(float(self.errors), self.total),
            recent_error_rate: ratio(float(recent_errors), recent),
            recent_requests: recent,
            max_ms: self.max.as_secs_f64() * 1000.0,
            p50_ms: self.quantile_ms(0.50),
            p95_ms: self.quantile_ms(0.95),
            p99_ms: self.quantile_ms(0.99),
        }
    }

    fn quantile_ms(&self, quantile: f64) -> f64 {
        float(self.times_us.value_at_quantile(quantile)) / 1000.0
    }
}

fn whole_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn is_recent(second: u64, now_second: u64) -> bool {
    second <= now_second && now_second - second < WINDOW_SECONDS
}

/// Returns the length of the window. The current second counts with its elapsed fraction, so a steady rate is not
/// distorted.
fn window_seconds(now: Duration) -> f64 {
    let running = f64::from(now.subsec_nanos()) / 1e9;
    let whole = float(now.as_secs().min(WINDOW_SECONDS - 1));
    (whole + running).max(1.0)
}

fn ratio(sum: f64, count: u64) -> f64 {
    if count == 0 { 0.0 } else { sum / float(count) }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people; exact up to 2^53")]
fn float(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::super::labels::{Outcome, Route};
    use super::*;

    impl Performance {
        fn note(&self, now: Duration, elapsed: Duration, is_error: bool) {
            let outcome = if is_error { Outcome::Unavailable } else { Outcome::Hit };
            let (route, begun) = (Route::Embeddings, self.started);
            self.record_at(now, Ended { route, outcome, status: None, begun, elapsed, subject: None });
        }
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn near(actual: f64, expected: f64) -> bool {
        (actual - expected).abs() <= expected * 0.001
    }

    #[test]
    fn percentiles_are_accurate_to_three_digits() {
        let performance = Performance::new();
        for n in 1..=1000 {
            performance.note(ms(10), ms(n), false);
        }
        let now = performance.snapshot_at(ms(1000));
        assert!(near(now.p50_ms, 500.0) && near(now.p95_ms, 950.0) && near(now.p99_ms, 990.0), "{now:?}");
        assert!(near(now.max_ms, 1000.0) && near(now.avg_response_time_ms, 500.5), "{now:?}");
        assert_eq!(now.total_requests, 1000);
    }

    #[test]
    fn an_empty_snapshot_is_all_zeros() {
        let now = Performance::new().snapshot_at(Duration::ZERO);
        assert_eq!(now, PerformanceSnapshot::default());
    }

    #[test]
    fn the_rate_covers_only_the_last_minute() {
        let performance = Performance::new();
        for second in 0..200 {
            let per_second = if second < 140 { 50 } else { 2 };
            for _ in 0..per_second {
                performance.note(Duration::from_secs(second), ms(1), false);
            }
        }
        let now = performance.snapshot_at(Duration::from_millis(199_999));
        assert!((now.requests_per_second - 2.0).abs() < 0.01, "{now:?}");
        let later = performance.snapshot_at(Duration::from_secs(400));
        assert!(later.requests_per_second.abs() < f64::EPSILON, "{later:?}");
    }

    #[test]
    fn the_error_rate_is_a_share_between_zero_and_one() {
        let performance = Performance::new();
        for n in 0..4 {
            performance.note(ms(1), ms(1), n == 0);
        }
        let now = performance.snapshot_at(ms(1));
        assert!((now.error_rate - 0.25).abs() < f64::EPSILON && (now.recent_error_rate - 0.25).abs() < f64::EPSILON);
        let later = performance.snapshot_at(Duration::from_secs(70));
        assert!((later.error_rate - 0.25).abs() < f64::EPSILON && later.recent_error_rate.abs() < f64::EPSILON);
    }

    #[test]
    fn times_beyond_the_bounds_are_counted_at_the_bound() {
        let performance = Performance::new();
        performance.note(ms(1), Duration::from_secs(9_999), false);
        performance.note(ms(1), Duration::ZERO, false);
        let now = performance.snapshot_at(ms(1));
        assert_eq!(now.total_requests, 2);
        assert!(near(now.max_ms, 9_999_000.0) && near(now.p99_ms, 3_600_000.0), "{now:?}");
    }

    #[test]
    fn a_locked_shard_is_skipped_and_all_shards_are_summed() {
        let performance = Performance::new();
        performance.note(ms(1), ms(1), false);
        let taken = hold(&performance.shards[0]);
        performance.note(ms(1), ms(3), true);
        drop(taken);
        let now = performance.snapshot_at(ms(1));
        assert_eq!(now.total_requests, 2);
        assert!((now.error_rate - 0.5).abs() < f64::EPSILON && near(now.p99_ms, 3.0), "{now:?}");
    }

    #[test]
    fn the_last_hundred_requests_are_listed_newest_first() {
        let performance = Performance::new();
        let mut seen = Seen::default();
        for n in 0..150 {
            let taken = (n % 2 == 0).then(|| hold(&performance.shards[0]));
            performance.note(ms(n), ms(n), false);
            drop(taken);
        }
        let recent = performance.recent(&mut seen);
        let at: Vec<u64> = recent.iter().map(|request| request.at_ms - performance.started_ms()).collect();
        assert_eq!(at, (50..150).rev().collect::<Vec<u64>>());
        let ids: std::collections::BTreeSet<u64> = recent.iter().map(|request| request.id).collect();
        assert_eq!(ids.len(), MAX_RECENT);
        assert!(performance.recent(&mut seen).is_empty(), "each is told once");
        performance.note(ms(200), ms(1), true);
        let new = performance.recent(&mut seen);
        assert_eq!((new.len(), new[0].outcome), (1, "unavailable"));
    }

    #[test]
    fn the_rate_of_the_first_second_is_not_extrapolated() {
        let performance = Performance::new();
        performance.note(ms(1), ms(1), false);
        let now = performance.snapshot_at(ms(10));
        assert!((now.requests_per_second - 1.0).abs() < f64::EPSILON, "{now:?}");
    }
}
