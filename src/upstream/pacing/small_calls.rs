//! Interactive calls that are much smaller than those which the service refuses.
//!
//! A limit of tokens that refuses a large call mostly has room for a small one. So a search does not wait for the hold
//! after a refused call of a job, nor for the rate that was found out with such calls. The first small call is tried
//! alone. If it is refused as well, the limit is another one, and small calls wait like all others.

use std::time::Duration;

use tokio::time::Instant;

/// A call is small if it has at most this part of the tokens of a refused one.
const SMALL: usize = 4;

/// Time for which a refusal, or an accepted small call, says something of the next ones.
const REMEMBERED: Duration = Duration::from_mins(1);

/// Returns true if a call is much smaller than a refused one.
pub(super) const fn is_much_smaller(tokens: usize, refused: usize) -> bool {
    let tokens = if tokens == 0 { 1 } else { tokens };
    tokens.saturating_mul(SMALL) <= refused
}

/// What is known of small calls.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SmallCalls {
    /// Tokens of the smallest call that was refused lately, and the time of its refusal.
    refused: Option<(usize, Instant)>,
    /// Time of the last small call that was accepted during a hold.
    proven: Option<Instant>,
    /// The small call that is tried alone, by the time at which it entered.
    trial: Option<Instant>,
}

impl SmallCalls {
    /// Returns true if a call is much smaller than each one that was refused lately.
    pub(super) fn is_small(&self, tokens: usize, now: Instant) -> bool {
        let refused = self.refused.filter(|(_, at)| is_recent(*at, now));
        refused.is_some_and(|(refused, _)| is_much_smaller(tokens, refused))
    }

    /// Returns the tokens of the largest small call, if there is any.
    pub(super) fn most(&self) -> usize {
        self.refused.map_or(0, |(refused, _)| refused / SMALL)
    }

    /// Returns the time at which the call entered that is tried alone during the hold, if there is one.
    pub(super) fn trial(&self, now: Instant) -> Option<Instant> {
        self.trial.filter(|_| !self.is_proven(now))
    }

    /// Notes a small call that is made during a hold.
    pub(super) fn enter(&mut self, now: Instant) {
        if !self.is_proven(now) {
            self.trial = Some(now);
        }
    }

    /// Notes the end of a call that entered at this time.
    pub(super) fn leave(&mut self, entered: Instant) {
        self.trial = self.trial.filter(|trial| *trial != entered);
    }

    /// Notes a small call that was accepted during a hold.
    pub(super) const fn accepted(&mut self, now: Instant) {
        self.proven = Some(now);
    }

    /// Notes the refusal of a call with this many tokens. It may have been made because it was small.
    pub(super) fn refused(&mut self, tokens: usize, was_small: bool, now: Instant) {
        if was_small {
            self.proven = None;
        }
        match self.refused {
            Some((smallest, at)) if smallest < tokens && is_recent(at, now) => {}
            _ => self.refused = Some((tokens, now)),
        }
    }

    fn is_proven(&self, now: Instant) -> bool {
        self.proven.is_some_and(|proven| is_recent(proven, now))
    }
}

fn is_recent(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < REMEMBERED
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_smallest_refused_call_of_the_last_minute_decides() {
        let (mut small, now) = (SmallCalls::default(), Instant::now());
        assert!(!small.is_small(1, now), "nothing was refused");
        small.refused(1_000, false, now);
        assert!(small.is_small(250, now) && !small.is_small(251, now));
        small.refused(100, false, now + SECOND);
        small.refused(1_000, false, now + 2 * SECOND);
        assert!(small.is_small(25, now + 2 * SECOND) && !small.is_small(26, now + 2 * SECOND));
        small.refused(1_000, false, now + 61 * SECOND);
        assert!(small.is_small(250, now + 61 * SECOND), "the smaller one is a minute ago");
        assert!(!small.is_small(1, now + 121 * SECOND));
    }

    #[test]
    fn a_small_call_is_tried_alone_until_one_is_accepted() {
        let (mut small, now) = (SmallCalls::default(), Instant::now());
        small.refused(1_000, false, now);
        small.enter(now);
        assert_eq!(small.trial(now), Some(now));
        small.leave(now);
        assert_eq!(small.trial(now), None);
        small.accepted(now);
        small.enter(now + SECOND);
        assert_eq!(small.trial(now + SECOND), None, "it is known that small calls are accepted");
        small.refused(10, true, now + 2 * SECOND);
        small.enter(now + 3 * SECOND);
        assert_eq!(small.trial(now + 3 * SECOND), Some(now + 3 * SECOND));
    }
}
