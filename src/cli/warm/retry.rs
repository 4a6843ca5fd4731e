//! Schedule of the attempts of one request.

use std::fmt;
use std::time::Duration;

use http::HeaderMap;
use http::header::RETRY_AFTER;
use tokio::time::sleep;

/// Usual wait before the second attempt.
pub(super) const FIRST_WAIT: Duration = Duration::from_millis(500);

/// Limits of the attempts of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct RetryLimits {
    /// Maximum number of attempts.
    pub(super) attempts: u32,
    /// Longest wait, unless a response requests a longer one.
    pub(super) max_wait: Duration,
    /// Longest wait that a response may request.
    pub(super) max_requested_wait: Duration,
}

/// Attempts of one request so far.
#[derive(Debug)]
pub(super) struct RetrySchedule {
    limits: RetryLimits,
    attempts: u32,
    wait: Duration,
}

impl RetryLimits {
    /// Begins with the first attempt. `first_wait` is the wait before the second one, and doubles with each further one.
    pub(super) const fn schedule(self, first_wait: Duration) -> RetrySchedule {
        RetrySchedule { limits: self, attempts: 0, wait: first_wait }
    }
}

impl RetrySchedule {
    /// Waits after a failed attempt, for the requested time if there is one. Returns false if there were too many
    /// attempts.
    pub(super) async fn pause(&mut self, cause: &impl fmt::Display, requested: Option<Duration>) -> bool {
        let Some(wait) = self.next_wait(requested) else { return false };
        tracing::debug!(%cause, "the request is repeated");
        sleep(wait).await;
        true
    }

    /// Notes a failed attempt. Returns the wait before the next one, which is the requested wait if there is one.
    /// Returns `None` if there were too many attempts.
    fn next_wait(&mut self, requested: Option<Duration>) -> Option<Duration> {
        self.attempts += 1;
        if self.attempts >= self.limits.attempts {
            return None;
        }
        let wait = requested.unwrap_or(self.wait).min(self.limits.max_requested_wait);
        self.wait = (self.wait * 2).min(self.limits.max_wait);
        Some(wait)
    }
}

/// Returns the wait that a response requests.
pub(super) fn requested_wait(headers: &HeaderMap) -> Option<Duration> {
    // OpenAI's clients accept fractions here, too.
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let seconds = number("retry-after-ms").map(|ms| ms / 1_000.0).or_else(|| number(RETRY_AFTER.as_str()))?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const LIMITS: RetryLimits =
        RetryLimits { attempts: 6, max_wait: Duration::from_secs(5), max_requested_wait: Duration::from_mins(1) };

    #[test]
    fn waits_double_up_to_the_longest_and_end_with_the_last_attempt() {
        let mut schedule = LIMITS.schedule(SECOND);
        let waits: Vec<Option<Duration>> = (0..6).map(|_| schedule.next_wait(None)).collect();
        assert_eq!(
            waits,
            [Some(1), Some(2), Some(4), Some(5), Some(5), None].map(|wait| wait.map(Duration::from_secs))
        );
    }

    #[test]
    fn a_requested_wait_replaces_the_usual_one_within_its_own_limit() {
        let mut schedule = LIMITS.schedule(SECOND);
        assert_eq!(schedule.next_wait(Some(30 * SECOND)), Some(30 * SECOND));
        assert_eq!(schedule.next_wait(Some(3_600 * SECOND)), Some(60 * SECOND));
        assert_eq!(schedule.next_wait(Some(Duration::ZERO)), Some(Duration::ZERO));
        assert_eq!(schedule.next_wait(None), Some(5 * SECOND), "the usual wait has grown meanwhile");
    }

    #[test]
    fn milliseconds_precede_seconds_and_unusable_values_are_ignored() {
        let wait = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, value.parse().expect("it is a value"));
            }
            requested_wait(&headers)
        };
        assert_eq!(wait(&[("retry-after", "2"), ("retry-after-ms", "1500")]), Some(Duration::from_millis(1_500)));
        assert_eq!(wait(&[("retry-after", "0.5")]), Some(Duration::from_millis(500)));
        for unusable in ["-1", "Wed, 21 Oct 2015 07:28:00 GMT", "nan", "1e300", ""] {
            assert_eq!(wait(&[("retry-after", unusable)]), None, "{unusable}");
        }
        assert_eq!(wait(&[]), None);
    }
}
