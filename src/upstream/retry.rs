//! Retry policy: how often and when a failed call is repeated.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

use super::Class;
use crate::config;

/// Minimum capacity of the budget, so a quiet process can retry too.
const RESERVE: f64 = 10.0;

/// Time before a waiter's deadline at which a throttled waiter must have its answer.
pub(super) const TELL_AHEAD: Duration = Duration::from_millis(250);

/// Token bucket over all calls. It limits retries to a fraction of calls, so they cannot amplify an outage.
pub(super) struct Budget {
    tokens: Mutex<f64>,
}

impl Budget {
    /// Returns a full budget.
    pub(super) const fn new() -> Self {
        Self { tokens: Mutex::new(RESERVE) }
    }

    /// Notes a first attempt, which adds `ratio` of a retry to the budget.
    pub(super) fn deposit(&self, ratio: f64) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        // The bucket holds the deposits of 100 calls, or at least the reserve.
        *tokens = (*tokens + ratio).min(RESERVE.max(ratio * 100.0));
    }

    /// Takes one retry out of the budget. Returns false if there is none.
    pub(super) fn withdraw(&self) -> bool {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let granted = *tokens >= 1.0;
        if granted {
            *tokens -= 1.0;
        }
        granted
    }
}

/// Returns the wait before attempt number `attempt` (the first retry is 2), with `jitter` in `0..1`. The backoff is
/// exponential with full jitter. It is at least a tenth of the exponential value, so concurrent callers spread out and
/// none retries too fast.
pub(super) fn backoff(retry: &config::RetryConfig, attempt: u32, jitter: f64) -> Duration {
    // The bound keeps the shift below 32 bits.
    let doublings = attempt.saturating_sub(2).min(16);
    let ceiling = retry.base_wait.saturating_mul(1 << doublings).min(retry.max_wait);
    ceiling.mul_f64(jitter.clamp(0.1, 1.0))
}

/// Returns the time until which a call may be repeated after a failure of this class that took this long. `deadlines`
/// are those of the waiters. Normally the latest deadline counts. If the call is throttled, each waiter must learn that
/// before its own deadline; without an answer it would take the upstream to be down. Then the earliest deadline counts,
/// and must leave time for another attempt.
pub(super) fn retry_deadline(deadlines: &[Instant], class: Class, took: Duration) -> Instant {
    let now = Instant::now();
    // A waiter that has left must not end the retries of the others.
    let waiting = deadlines.iter().copied().filter(|deadline| *deadline > now);
    if class != Class::Throttled {
        return waiting.max().unwrap_or(now);
    }
    waiting.min().and_then(|first| first.checked_sub(TELL_AHEAD + took)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::UnavailableReason;

    #[test]
    fn an_outage_is_not_multiplied_by_retries() {
        let budget = Budget::new();
        let retries = (0..1_000).filter(|_| {
            budget.deposit(0.2);
            budget.withdraw()
        });
        let retries = retries.count();
        assert!((200..=211).contains(&retries), "{retries} retries for 1000 calls");
    }

    #[test]
    fn the_retry_budget_is_capped_after_many_calls_without_retries() {
        for (ratio, most) in [(0.05, 10), (0.2, 20)] {
            let budget = Budget::new();
            (0..10_000).for_each(|_| budget.deposit(ratio));
            assert_eq!((0..1_000).filter(|_| budget.withdraw()).count(), most, "{ratio}");
        }
    }

    #[test]
    fn backoff_doubles_up_to_the_maximum() {
        let retry = config::RetryConfig {
            max_attempts: 9,
            base_wait: Duration::from_millis(100),
            max_wait: Duration::from_millis(300),
            budget_ratio: 0.2,
        };
        let waits: Vec<u128> = (2..6).map(|attempt| backoff(&retry, attempt, 1.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 300, 300]);
        assert_eq!(backoff(&retry, 2, 0.0).as_millis(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn outages_are_retried_until_the_last_deadline_and_429_until_the_first() {
        let (begun, second) = (Instant::now(), Duration::from_secs(1));
        let deadlines = [begun + 10 * second, begun + second, begun + 5 * second];
        tokio::time::advance(2 * second).await;
        let until = |class| retry_deadline(&deadlines, class, second).duration_since(begun);
        assert_eq!(until(Class::Unavailable(UnavailableReason::Status)), 10 * second);
        assert_eq!(until(Class::Throttled) + TELL_AHEAD, 4 * second, "who has left counts no more");
        tokio::time::advance(8 * second).await;
        assert_eq!(retry_deadline(&deadlines, Class::Throttled, second), Instant::now(), "nobody waits");
    }
}
