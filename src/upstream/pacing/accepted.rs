//! The calls that the service has accepted within the last minute.

use tokio::time::Instant;

const SECONDS: usize = 60;

/// Seconds whose mean counts if it is larger.
const RECENT: usize = 10;

/// Accepted calls and their tokens in each of the last sixty seconds.
#[derive(Clone, Debug)]
pub(super) struct AcceptedCalls {
    begun: Instant,
    counts: [Count; SECONDS],
    /// The second of the newest count, from `begun` on.
    newest: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    calls: u32,
    tokens: u64,
}

impl AcceptedCalls {
    pub(super) fn new(now: Instant) -> Self {
        Self { begun: now, counts: [Count::default(); SECONDS], newest: 0 }
    }

    /// Counts a call with this many tokens.
    pub(super) fn add(&mut self, tokens: usize, now: Instant) {
        let place = self.forget_old(now);
        let count = &mut self.counts[place];
        count.calls += 1;
        count.tokens += tokens as u64;
    }

    /// Returns the mean number of calls in a second that the service would have accepted if each had this many tokens,
    /// of the last minute or of the last ten seconds, whichever is larger. The first is right for limits per minute as
    /// soon as they are used up, the second for those per second.
    pub(super) fn per_second(&mut self, tokens: usize, now: Instant) -> f64 {
        let place = self.forget_old(now);
        let last = |seconds: usize| {
            let count = |back: usize| self.counts[(place + SECONDS - back) % SECONDS];
            let calls: u32 = (0..seconds).map(|back| count(back).calls).sum();
            let sum: u64 = (0..seconds).map(|back| count(back).tokens).sum();
            f64::from(calls).min(float(sum) / float(tokens.max(1) as u64))
        };
        (last(SECONDS) / 60.0).max(last(RECENT) / 10.0)
    }

    /// Clears the counts that are older than a minute. Returns the place of the present second.
    #[expect(clippy::cast_possible_truncation, reason = "it is below sixty")]
    fn forget_old(&mut self, now: Instant) -> usize {
        let second = now.saturating_duration_since(self.begun).as_secs().max(self.newest);
        for old in (self.newest + 1..=second).take(SECONDS) {
            self.counts[(old % SECONDS as u64) as usize] = Count::default();
        }
        self.newest = second;
        (second % SECONDS as u64) as usize
    }
}

#[expect(clippy::cast_precision_loss, reason = "the tokens of a minute are far below 2^53")]
const fn float(count: u64) -> f64 {
    count as f64
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
        (0..30).for_each(|second| accepted.add(10, after(second)));
        assert!((accepted.per_second(10, after(29)) - 1.0).abs() < 1e-9, "of the last ten seconds");
        assert!((accepted.per_second(10, after(45)) - 0.5).abs() < 1e-9, "of the last minute");
        assert!((accepted.per_second(10, after(74)) - 0.25).abs() < 1e-9, "half of them are older than a minute");
        assert!(accepted.per_second(10, after(1_000)).abs() < 1e-9);
        accepted.add(10, after(1_000));
        assert!((accepted.per_second(10, after(1_000)) - 0.1).abs() < 1e-9);
    }

    #[test]
    fn calls_of_other_sizes_count_by_their_tokens() {
        let now = Instant::now();
        let mut accepted = AcceptedCalls::new(now);
        (0..100).for_each(|_| accepted.add(10, now));
        (0..20).for_each(|_| accepted.add(1_000, now));
        assert!((accepted.per_second(1_000, now) - 2.1).abs() < 1e-9);
        assert!((accepted.per_second(10, now) - 12.0).abs() < 1e-9, "there may be a limit of calls");
    }
}
