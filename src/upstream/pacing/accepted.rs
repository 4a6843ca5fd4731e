//! The calls that the service has accepted within the last minute.

use tokio::time::Instant;

const SECONDS: usize = 60;

/// Seconds whose mean counts if it is larger.
const RECENT: usize = 10;

/// Number of accepted calls in each of the last sixty seconds.
#[derive(Clone, Debug)]
pub(super) struct AcceptedCalls {
    begun: Instant,
    counts: [u32; SECONDS],
    /// The second of the newest count, from `begun` on.
    newest: u64,
}

impl AcceptedCalls {
    pub(super) const fn new(now: Instant) -> Self {
        Self { begun: now, counts: [0; SECONDS], newest: 0 }
    }

    /// Counts a call.
    pub(super) fn add(&mut self, now: Instant) {
        let place = self.forget_old(now);
        self.counts[place] += 1;
    }

    /// Returns the mean number of accepted calls in a second, of the last minute or of the last ten seconds, whichever
    /// is larger. The first is right for limits per minute as soon as they are used up, the second for those per second.
    pub(super) fn per_second(&mut self, now: Instant) -> f64 {
        let place = self.forget_old(now);
        let last = |seconds: usize| (0..seconds).map(|back| self.counts[(place + SECONDS - back) % SECONDS]).sum();
        let (minute, recent): (u32, u32) = (last(SECONDS), last(RECENT));
        (f64::from(minute) / 60.0).max(f64::from(recent) / 10.0)
    }

    /// Clears the counts that are older than a minute. Returns the place of the present second.
    #[expect(clippy::cast_possible_truncation, reason = "it is below sixty")]
    fn forget_old(&mut self, now: Instant) -> usize {
        let second = now.saturating_duration_since(self.begun).as_secs().max(self.newest);
        for old in (self.newest + 1..=second).take(SECONDS) {
            self.counts[(old % SECONDS as u64) as usize] = 0;
        }
        self.newest = second;
        (second % SECONDS as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn calls_are_counted_for_a_minute() {
        let begun = Instant::now();
        let mut accepted = AcceptedCalls::new(begun);
        let after = |seconds| begun + Duration::from_secs(seconds);
        (0..30).for_each(|second| accepted.add(after(second)));
        assert!((accepted.per_second(after(29)) - 1.0).abs() < 1e-9, "of the last ten seconds");
        assert!((accepted.per_second(after(45)) - 0.5).abs() < 1e-9, "of the last minute");
        assert!((accepted.per_second(after(74)) - 0.25).abs() < 1e-9, "half of them are older than a minute");
        assert!(accepted.per_second(after(1_000)).abs() < 1e-9);
        accepted.add(after(1_000));
        assert!((accepted.per_second(after(1_000)) - 0.1).abs() < 1e-9);
    }
}
