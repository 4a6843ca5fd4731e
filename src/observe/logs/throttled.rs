//! Rate limit for repeated log lines: one line a minute for each cause, and a count of the others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, interval};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// Least time between two lines of one cause.
const QUIET: Duration = Duration::from_mins(1);
/// Interval of the checks of the counts.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// Rate limiter of log lines. Cheap to clone; clones share their counts.
#[derive(Clone, Debug, Default)]
pub struct Throttled(Arc<Mutex<BTreeMap<&'static str, Flood>>>);

#[derive(Clone, Copy, Debug)]
struct Flood {
    since: Instant,
    left_out: u64,
}

impl Throttled {
    /// Returns true if a line of this cause may be logged, at most once a minute. The others are counted, and
    /// [`Throttled::run`] logs their number.
    pub fn admits(&self, cause: &'static str) -> bool {
        let mut is_first = false;
        let mut floods = self.floods();
        let flood = floods.entry(cause).or_insert_with(|| {
            is_first = true;
            Flood { since: Instant::now(), left_out: 0 }
        });
        flood.left_out += u64::from(!is_first);
        is_first
    }

    /// Logs the number of suppressed lines once a minute. Never returns.
    pub async fn run(self) {
        let mut checks = interval(CHECK_EVERY);
        loop {
            checks.tick().await;
            self.flush(QUIET);
        }
    }

    /// Logs the number of suppressed lines at once.
    pub fn finish(&self) {
        self.flush(Duration::ZERO);
    }

    fn flush(&self, quiet: Duration) {
        for (cause, left_out) in self.over(quiet) {
            tracing::warn!(left_out, "{cause} (and {left_out} more in the last minute)");
        }
    }

    /// Returns the causes with an expired minute and their suppressed lines. A cause without suppressed lines is
    /// removed, so its next line is logged at once. The lock is released before anything is logged, because logging
    /// calls this type again.
    fn over(&self, quiet: Duration) -> Vec<(&'static str, u64)> {
        let mut over = Vec::new();
        self.floods().retain(|cause, flood| {
            if flood.since.elapsed() < quiet {
                return true;
            }
            let goes_on = flood.left_out > 0;
            if goes_on {
                over.push((*cause, flood.left_out));
            }
            *flood = Flood { since: Instant::now(), left_out: 0 };
            goes_on
        });
        over
    }

    fn floods(&self) -> MutexGuard<'_, BTreeMap<&'static str, Flood>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Limits the warnings of other crates by module, because a peer can cause them at will.
pub(super) struct Foreign(pub(super) Throttled);

impl<S: Subscriber> Layer<S> for Foreign {
    fn event_enabled(&self, event: &Event<'_>, _context: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        let target = metadata.target();
        let is_own = target.strip_prefix("vecho").is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
        // In `tracing`, a level is greater if it is less severe. Only warnings and errors are limited.
        is_own || *metadata.level() > Level::WARN || self.0.admits(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn repeated_causes_are_one_line_a_minute_and_a_count() {
        let throttled = Throttled::default();
        let written = (0..513).filter(|_| throttled.admits("a cause")).count();
        assert_eq!((written, throttled.admits("another cause")), (1, true));
        assert_eq!(throttled.over(QUIET), []);
        tokio::time::advance(QUIET).await;
        assert_eq!(throttled.over(QUIET), [("a cause", 512)]);
        assert!(!throttled.admits("a cause"), "the line with the count was the one of this minute");
        tokio::time::advance(QUIET).await;
        assert_eq!(throttled.over(QUIET), [("a cause", 1)]);
        tokio::time::advance(QUIET).await;
        assert_eq!(throttled.over(QUIET), []);
        assert!(throttled.admits("a cause"), "after a quiet minute it is news again");
    }

    #[tokio::test(start_paused = true)]
    async fn suppressed_lines_are_reported_at_once_at_shutdown() {
        let throttled = Throttled::default();
        assert!(throttled.admits("a cause") && !throttled.clone().admits("a cause"));
        assert_eq!(throttled.over(Duration::ZERO), [("a cause", 1)]);
    }
}
