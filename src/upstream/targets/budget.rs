//! Budget of calls and tokens a minute at one target.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Part of a minute whose share of the limit may be used at once. Services measure over short windows as well.
const BURST: f64 = 1.0 / 6.0;

/// Budget of one target, in calls and in tokens.
#[derive(Debug)]
pub(super) struct MinuteBudget {
    buckets: Mutex<[Option<MinuteBucket>; 2]>,
}

/// Amount that refills steadily up to a maximum.
#[derive(Clone, Copy, Debug)]
struct MinuteBucket {
    level: f64,
    at: Instant,
    per_second: f64,
    most: f64,
}

impl MinuteBucket {
    #[expect(clippy::cast_precision_loss, reason = "limits are far below 2^53")]
    fn new(per_minute: u64) -> Self {
        let most = (per_minute as f64 * BURST).max(1.0);
        Self { level: most, at: Instant::now(), per_second: per_minute as f64 / 60.0, most }
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.level, self.at) = ((self.level + passed * self.per_second).min(self.most), now);
    }

    /// Returns the time until `amount` is there. An amount above the maximum needs a full bucket.
    fn wait(&self, amount: f64) -> Duration {
        let lacking = amount.min(self.most) - self.level;
        if lacking <= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(lacking / self.per_second) }
    }
}

impl MinuteBudget {
    /// Creates a full budget. `None` is no limit.
    pub(super) fn new(requests_per_minute: Option<u64>, tokens_per_minute: Option<u64>) -> Self {
        Self { buckets: Mutex::new([requests_per_minute, tokens_per_minute].map(|limit| limit.map(MinuteBucket::new))) }
    }

    /// Returns the time until a call with this many tokens is within the budget.
    pub(super) fn wait(&self, tokens: usize) -> Duration {
        self.with(tokens, |bucket, amount| bucket.wait(amount)).into_iter().max().unwrap_or_default()
    }

    /// Takes a call with this many tokens out of the budget.
    pub(super) fn take(&self, tokens: usize) {
        self.with(tokens, |bucket, amount| bucket.level -= amount);
    }

    /// Returns the used share of the scarcer budget, from 0 to 1.
    pub(super) fn used(&self) -> f64 {
        self.with(0, |bucket, _| 1.0 - (bucket.level / bucket.most).clamp(0.0, 1.0)).into_iter().fold(0.0, f64::max)
    }

    #[expect(clippy::cast_precision_loss, reason = "the tokens of a call are far below 2^53")]
    fn with<T>(&self, tokens: usize, act: impl Fn(&mut MinuteBucket, f64) -> T) -> Vec<T> {
        let (now, amounts) = (Instant::now(), [1.0, tokens as f64]);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let limited = buckets.iter_mut().zip(amounts).filter_map(|(bucket, amount)| Some((bucket.as_mut()?, amount)));
        let act = |(bucket, amount): (&mut MinuteBucket, f64)| {
            bucket.refill(now);
            act(bucket, amount)
        };
        limited.map(act).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_minute_of_calls_takes_a_minute() {
        let budget = MinuteBudget::new(Some(60), None);
        let begun = Instant::now();
        for _ in 0..70 {
            tokio::time::sleep(budget.wait(0)).await;
            budget.take(0);
        }
        let took = begun.elapsed().as_secs_f64();
        assert!((59.9..61.1).contains(&took), "{took} s for 70 calls, of which 10 are at once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_above_the_limit_of_tokens_waits_for_a_full_budget_and_is_paid_afterwards() {
        let budget = MinuteBudget::new(None, Some(600));
        assert_eq!(budget.wait(1_000), Duration::ZERO);
        budget.take(1_000);
        assert_eq!(budget.wait(10).as_secs(), 91, "900 below zero, at ten a second");
        assert!((budget.used() - 1.0).abs() < 1e-9);
    }

    #[tokio::test(start_paused = true)]
    async fn without_limits_nothing_waits() {
        let budget = MinuteBudget::new(None, None);
        (0..10_000).for_each(|_| budget.take(1_000));
        assert_eq!((budget.wait(1), budget.used().to_bits()), (Duration::ZERO, 0.0_f64.to_bits()));
    }
}
