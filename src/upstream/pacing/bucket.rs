//! Token bucket: an amount that refills steadily up to a maximum.

use std::time::Duration;

use tokio::time::Instant;

/// Shortest wait that is reported, since timers have milliseconds.
const LEAST_WAIT: Duration = Duration::from_millis(1);

/// Token bucket. Its level may be negative: a call may turn out larger than expected.
#[derive(Clone, Copy, Debug)]
pub(super) struct TokenBucket {
    level: f64,
    most: f64,
    per_second: f64,
    at: Instant,
    /// Time at which it is full, if the service has said so.
    full_at: Option<Instant>,
}

impl TokenBucket {
    /// Creates a full bucket.
    pub(super) fn new(per_second: f64, most: f64, now: Instant) -> Self {
        Self { level: most, most, per_second, at: now, full_at: None }
    }

    /// Changes the rate and the maximum. The level stays as far as it is below the maximum.
    pub(super) fn set(&mut self, per_second: f64, most: f64, now: Instant) {
        self.refill(now);
        (self.per_second, self.most, self.level) = (per_second, most, self.level.min(most));
    }

    /// Returns the refill in a second.
    pub(super) const fn per_second(&self) -> f64 {
        self.per_second
    }

    /// Returns the level.
    pub(super) fn level(&mut self, now: Instant) -> f64 {
        self.refill(now);
        self.level
    }

    /// Returns the maximum.
    pub(super) const fn most(&self) -> f64 {
        self.most
    }

    /// Lowers the level to what the service says is left, or raises it if the report `is_exact`, because no other call
    /// is in flight. `reset` is the time until it is full.
    pub(super) fn report(&mut self, (left, is_exact): (f64, bool), reset: Option<Duration>, now: Instant) {
        self.refill(now);
        self.level = if is_exact { left.min(self.most) } else { self.level.min(left) };
        self.full_at = reset.and_then(|reset| now.checked_add(reset));
    }

    /// Returns the time until `amount` is there, and `reserve` beyond it. An amount above the maximum needs a full
    /// bucket.
    pub(super) fn wait(&mut self, amount: f64, reserve: f64, now: Instant) -> Duration {
        self.refill(now);
        // The small part keeps rounding from adding a wait of nothing.
        let lacking = (amount + reserve).min(self.most) - self.level - 1e-9;
        if lacking <= 0.0 {
            return Duration::ZERO;
        }
        let steady = Duration::try_from_secs_f64(lacking / self.per_second).unwrap_or(Duration::MAX);
        let full = self.full_at.map_or(Duration::MAX, |full| full.saturating_duration_since(now));
        steady.min(full).max(LEAST_WAIT)
    }

    /// Returns the time until `amount`, which may exceed the maximum, has been there in total.
    pub(super) fn time_for(&mut self, amount: f64, now: Instant) -> Duration {
        self.refill(now);
        let steady = |amount: f64| Duration::try_from_secs_f64(amount.max(0.0) / self.per_second);
        let refilled = steady(amount - self.level).unwrap_or(Duration::MAX);
        let Some(full) = self.full_at else { return refilled };
        // It is full by then, whatever the rate.
        let beyond = steady(amount - self.most).unwrap_or(Duration::MAX);
        refilled.min(full.saturating_duration_since(now).saturating_add(beyond))
    }

    /// Takes an amount, or gives a negative one back.
    pub(super) fn take(&mut self, amount: f64, now: Instant) {
        self.refill(now);
        self.level = (self.level - amount).min(self.most);
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.level = (self.level + passed * self.per_second).min(self.most);
        if self.full_at.is_some_and(|full| full <= now) {
            (self.level, self.full_at) = (self.most, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_minute_of_calls_takes_a_minute() {
        let begun = Instant::now();
        let (mut bucket, mut now) = (TokenBucket::new(1.0, 10.0, begun), begun);
        for _ in 0..70 {
            now += bucket.wait(1.0, 0.0, now);
            bucket.take(1.0, now);
        }
        let took = now.duration_since(begun).as_secs_f64();
        assert!((59.9..60.2).contains(&took), "{took} s for 70 calls, of which 10 are at once");
    }

    #[test]
    fn an_amount_above_the_maximum_needs_a_full_bucket_and_is_paid_afterwards() {
        let now = Instant::now();
        let mut bucket = TokenBucket::new(10.0, 100.0, now);
        assert_eq!(bucket.wait(1_000.0, 0.0, now), Duration::ZERO);
        bucket.take(1_000.0, now);
        assert_eq!(bucket.wait(10.0, 0.0, now).as_secs(), 91, "900 below zero, at ten a second");
    }

    #[test]
    fn a_reserve_is_left_to_others() {
        let now = Instant::now();
        let mut bucket = TokenBucket::new(1.0, 10.0, now);
        bucket.take(5.0, now);
        assert_eq!(bucket.wait(4.0, 1.0, now), Duration::ZERO);
        assert_eq!(bucket.wait(4.0, 2.0, now).as_millis(), 999, "a thousand, but for rounding");
    }

    #[test]
    fn a_report_lowers_the_level_and_says_when_the_bucket_is_full() {
        let now = Instant::now();
        let mut bucket = TokenBucket::new(1.0, 60.0, now);
        bucket.report((0.0, false), Some(2 * SECOND), now);
        assert_eq!(bucket.wait(10.0, 0.0, now), 2 * SECOND, "it is full then, whatever the rate");
        assert_eq!(bucket.time_for(10.0, now), 2 * SECOND);
        assert_eq!(bucket.time_for(70.0, now), 12 * SECOND, "ten more refill after that");
        assert_eq!(bucket.wait(10.0, 0.0, now + 2 * SECOND), Duration::ZERO);
        bucket.take(20.0, now + 2 * SECOND);
        bucket.report((50.0, false), None, now + 2 * SECOND);
        assert!((bucket.level(now + 2 * SECOND) - 40.0).abs() < 1e-6, "other calls may be in flight");
        bucket.report((50.0, true), None, now + 2 * SECOND);
        assert!((bucket.level(now + 2 * SECOND) - 50.0).abs() < 1e-6);
    }
}
