//! Number of concurrent parts of cut requests: as many as improve the server's throughput.

use std::time::Duration;

/// Maximum number of concurrent parts.
const MOST_CALLS: usize = 8;

/// More calls count as a gain if the server's throughput grows by this factor.
const GAIN: f64 = 1.3;

/// Number of answers after which a width that brought no gain is tried again.
const TRY_AGAIN_AFTER: u32 = 200;

/// Width that doubles while each doubling brings a gain.
#[derive(Debug)]
pub(super) struct Width {
    calls: usize,
    /// Inputs per second with half as many calls.
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
    /// Returns the maximum number of concurrent calls.
    pub(super) const fn calls(&self) -> usize {
        self.calls
    }

    /// Notes that one of these calls was answered.
    pub(super) fn answered(&mut self, inputs: usize, took: Duration) {
        // A settled width is not measured until this many answers have passed.
        if self.settled_for > 0 {
            self.settled_for -= 1;
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "counts of inputs and calls are small")]
        // The calls run at the same time, so one call's rate counts once for each. The floor avoids a division by zero.
        let rate = (inputs * self.calls) as f64 / took.as_secs_f64().max(1e-6);
        self.sum += rate;
        self.answers += 1;
        // Two answers per concurrent call smooth the rate.
        if self.answers as usize >= 2 * self.calls {
            self.judge();
        }
    }

    fn judge(&mut self) {
        let rate = self.sum / f64::from(self.answers);
        (self.sum, self.answers) = (0.0, 0);
        if rate < self.rate_before * GAIN {
            // The last doubling brought no gain, so it is undone.
            self.calls = (self.calls / 2).max(1);
            // Without a rate to compare with, the next judgement accepts the width and doubles it again.
            (self.rate_before, self.settled_for) = (0.0, TRY_AGAIN_AFTER);
        } else if self.calls < MOST_CALLS {
            (self.rate_before, self.calls) = (rate, self.calls * 2);
        } else {
            // At the maximum there is no larger width to compare with, so the width is kept.
            (self.rate_before, self.settled_for) = (0.0, TRY_AGAIN_AFTER);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Simulates a server that embeds up to `workers` inputs at once, each in 50 ms.
    fn settle(workers: usize) -> usize {
        let mut width = Width::default();
        for _ in 0..60 {
            let waits = width.calls().div_ceil(workers);
            width.answered(40, Duration::from_secs(2) * u32::try_from(waits).expect("small"));
        }
        width.calls()
    }

    #[test]
    fn a_serial_server_gets_one_call_at_a_time() {
        assert_eq!(settle(1), 1);
    }

    #[test]
    fn a_parallel_server_gets_more_calls_up_to_the_bound() {
        assert_eq!([2, 4, 8, 100].map(settle), [2, 4, 8, 8]);
    }
}
