//! The share of recent calls that the service has refused for their rate.
//!
//! A single refusal says little: an overloaded service refuses some calls at random, and a client without vecho would
//! repeat them and go on. Only a rate that is too high makes the service refuse a large share.

use std::time::Duration;

use tokio::time::Instant;

/// Time after which older calls count half.
const HALF_LIFE: Duration = Duration::from_secs(10);

/// Accepted and refused calls of the last seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct RefusalShare {
    accepted: f64,
    refused: f64,
    since: Instant,
}

impl RefusalShare {
    pub(super) const fn new(now: Instant) -> Self {
        Self { accepted: 0.0, refused: 0.0, since: now }
    }

    /// Counts an accepted call.
    pub(super) fn accepted(&mut self, now: Instant) {
        self.age(now);
        self.accepted += 1.0;
    }

    /// Counts a refused call.
    pub(super) fn refused(&mut self, now: Instant) {
        self.age(now);
        self.refused += 1.0;
    }

    /// Returns true if at least `least` calls were refused, and `share` of all.
    pub(super) fn exceeds(&self, least: f64, share: f64) -> bool {
        self.refused >= least && self.refused >= share * (self.accepted + self.refused)
    }

    fn age(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since);
        if passed < HALF_LIFE {
            return;
        }
        let kept = 0.5_f64.powf(passed.as_secs_f64() / HALF_LIFE.as_secs_f64());
        (self.accepted, self.refused, self.since) = (self.accepted * kept, self.refused * kept, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_refusals_among_many_calls_are_no_large_share() {
        let now = Instant::now();
        let mut share = RefusalShare::new(now);
        (0..94).for_each(|_| share.accepted(now));
        (0..6).for_each(|_| share.refused(now));
        assert!(share.exceeds(4.0, 0.05));
        assert!(!share.exceeds(4.0, 0.1));
        (0..30).for_each(|_| share.refused(now));
        assert!(share.exceeds(4.0, 0.25));
    }

    #[test]
    fn older_calls_count_less() {
        let now = Instant::now();
        let mut share = RefusalShare::new(now);
        (0..16).for_each(|_| share.refused(now));
        share.accepted(now + 2 * HALF_LIFE);
        assert!(share.exceeds(4.0, 0.75));
        assert!(!share.exceeds(4.1, 0.75));
    }
}
