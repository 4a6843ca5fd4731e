//! Cost of the calls of a lane: a fixed time per call, and time per input.

use std::collections::VecDeque;
use std::time::Duration;

/// Number of calls with remembered times.
const RECENT_CALLS: usize = 16;

/// A call justifies its fixed time if its inputs take this many times as long. So cutting a request adds a
/// quarter at most.
const WORTH: u32 = 4;

/// Times of the latest calls, the newest first.
#[derive(Debug, Default)]
pub(super) struct Cost {
    recent: VecDeque<(usize, Duration)>,
    own: Duration,
}

impl Cost {
    /// Notes the time of an answered call. Calls of very different sizes let the two costs be told apart.
    pub(super) fn answered(&mut self, inputs: usize, took: Duration) {
        let differs = |other: usize| inputs / 2 >= other || other / 2 >= inputs;
        if let Some(other) = self.recent.iter().copied().find(|(other, _)| differs(*other)) {
            let (small, large) = if other.0 < inputs { (other, (inputs, took)) } else { ((inputs, took), other) };
            self.compare(small, large);
        }
        self.recent.push_front((inputs, took));
        self.recent.truncate(RECENT_CALLS);
    }

    fn compare(&mut self, (few, quick): (usize, Duration), (many, long): (usize, Duration)) {
        // Two calls define a line: the slope is the time of one input, and the value at zero inputs is the fixed time.
        if quick <= long {
            self.own = quick.saturating_sub(times(long.saturating_sub(quick) / divisor(many - few), few));
        } else if quick / 3 * 2 <= long {
            // The small call took at most half as long again: inputs hardly matter, so all time is fixed.
            self.own = long;
        }
        // Otherwise the small call waited for something that the large one found ready, such as a model that loads.
    }

    /// Returns the number of inputs that take `target`, given that `inputs` took `took`. Returns more if a call would
    /// otherwise not justify its fixed time.
    pub(super) fn fitting(&self, inputs: usize, took: Duration, target: Duration) -> usize {
        proportional(inputs, took.saturating_sub(self.own), target.max(self.own * WORTH))
    }

    /// Returns the longest recent time, if there is any.
    pub(super) fn longest_of_all(&self) -> Option<Duration> {
        self.recent.iter().map(|(_, took)| *took).max()
    }

    /// Returns the longest recent time for this many inputs, extrapolated from calls of other sizes, if there are any.
    pub(super) fn longest(&self, inputs: usize) -> Option<Duration> {
        // The factor is at least one: a smaller call may take as long, because part of its time may be fixed.
        self.recent.iter().map(|(before, took)| times(*took, inputs.div_ceil((*before).max(1)))).max()
    }
}

/// Returns the number of inputs that take `target` if `inputs` took `took` and a call has no fixed time; at least one.
pub(super) fn proportional(inputs: usize, took: Duration, target: Duration) -> usize {
    let fitting = (inputs as u128 * target.as_micros()) / took.as_micros().max(1);
    usize::try_from(fitting).unwrap_or(usize::MAX).max(1)
}

fn times(took: Duration, count: usize) -> Duration {
    took.saturating_mul(divisor(count))
}

fn divisor(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Duration = Duration::from_secs(2);

    /// Returns how many inputs fit after calls of these sizes, at a server that takes `own_ms` per call and
    /// `input_ms` per input.
    fn fitting_after(calls: &[usize], own_ms: u64, input_ms: u64) -> usize {
        let took = |inputs: usize| Duration::from_millis(own_ms + inputs as u64 * input_ms);
        let mut cost = Cost::default();
        for inputs in calls {
            cost.answered(*inputs, took(*inputs));
        }
        let last = *calls.last().expect("a call");
        cost.fitting(last, took(last), TARGET)
    }

    #[test]
    fn time_per_input_limits_calls_to_the_target_time() {
        assert_eq!([&[300][..], &[1, 300], &[300, 40]].map(|calls| fitting_after(calls, 0, 50)), [40, 40, 40]);
    }

    #[test]
    fn fixed_time_per_call_makes_calls_larger() {
        assert_eq!(fitting_after(&[1, 300], 1_200, 2), 2_400);
        assert_eq!(fitting_after(&[1, 300], 100, 50), 40);
    }

    #[test]
    fn calls_without_time_per_input_are_not_limited() {
        assert!(fitting_after(&[1, 300], 10_000, 0) > 1_000_000);
        assert!(fitting_after(&[300, 60], 10_000, 0) > 1_000_000);
    }

    #[test]
    fn a_small_call_that_waited_for_its_model_is_ignored() {
        let mut cost = Cost::default();
        cost.answered(1, Duration::from_secs(70));
        cost.answered(300, Duration::from_secs(15));
        assert_eq!(cost.fitting(300, Duration::from_secs(15), TARGET), 40);
    }

    #[test]
    fn calls_of_similar_duration_at_any_size_are_not_limited() {
        let mut cost = Cost::default();
        cost.answered(1, Duration::from_secs(11));
        cost.answered(300, Duration::from_secs(10));
        assert!(cost.fitting(300, Duration::from_secs(10), TARGET) > 1_000_000);
    }
}
