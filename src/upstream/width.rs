//! Number of parts of cut requests that are under way at once: as many as the server gains by.

use std::time::Duration;

/// Most parts under way at once.
const MOST_CALLS: usize = 8;

/// A server gains by more calls if it then embeds this many times as much.
const GAIN: f64 = 1.3;

/// Answers after which a number that brought no gain is tried again.
const TRY_AGAIN_AFTER: u32 = 200;

/// Climbs as long as each doubling brings a gain.
#[derive(Debug)]
pub(super) struct Width {
    calls: usize,
    /// Inputs a second with half as many calls.
    rate_before: f64,
    sum: f64,
    answers: u32,
    settled_for: u32,
}

impl Default for Width {
    fn default() -> Self {
        Self { calls: 1, rate_before: 0.0, sum: 0.0, answers: 0, settled_for: 0 }
    }
}

impl Width {
    /// Calls that may be under way at once.
    pub(super) const fn calls(&self) -> usize {
        self.calls
    }

    /// One of them was answered.
    pub(super) fn answered(&mut self, inputs: usize, took: Duration) {
        if self.settled_for > 0 {
            self.settled_for -= 1;
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "counts of inputs and calls are small")]
        let rate = (inputs * self.calls) as f64 / took.as_secs_f64().max(1e-6);
        self.sum += rate;
        self.answers += 1;
        if self.answers as usize >= 2 * self.calls {
            self.judge();
        }
    }

    fn judge(&mut self) {
        let rate = self.sum / f64::from(self.answers);
        (self.sum, self.answers) = (0.0, 0);
        if rate < self.rate_before * GAIN {
            self.calls = (self.calls / 2).max(1);
            (self.rate_before, self.settled_for) = (0.0, TRY_AGAIN_AFTER);
        } else if self.calls < MOST_CALLS {
            (self.rate_before, self.calls) = (rate, self.calls * 2);
        } else {
            (self.rate_before, self.settled_for) = (0.0, TRY_AGAIN_AFTER);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers as a server that embeds up to `workers` inputs at once, each in 50 ms.
    fn settle(workers: usize) -> usize {
        let mut width = Width::default();
        for _ in 0..60 {
            let waits = width.calls().div_ceil(workers);
            width.answered(40, Duration::from_secs(2) * u32::try_from(waits).expect("small"));
        }
        width.calls()
    }

    #[test]
    fn a_server_that_embeds_one_after_the_other_gets_one_call_at_a_time() {
        assert_eq!(settle(1), 1);
    }

    #[test]
    fn a_server_that_gains_by_more_calls_gets_more_up_to_the_bound() {
        assert_eq!([2, 4, 8, 100].map(settle), [2, 4, 8, 8]);
    }
}
