//! The time for which calls are held back after the service has refused one for its rate.

use std::time::Duration;

use tokio::time::Instant;

/// First hold if the service names no time; it doubles with each further refusal.
const FIRST_HOLD: Duration = Duration::from_millis(100);
const LONGEST_GUESS: Duration = Duration::from_secs(8);

/// Shortest hold, whatever time the service names.
const LEAST_HOLD: Duration = Duration::from_millis(5);

/// After this time one call is tried, whatever time the service has named: it may have recovered.
const LONGEST_HOLD: Duration = Duration::from_mins(1);

/// If the service names a longer time than that, a call is tried after this time, which doubles with each further
/// refusal. Such a time is that of another limit than one per minute, or an error that only one call has met.
const FIRST_TRIAL: Duration = Duration::from_secs(1);

/// Refusals after which such a time is certain. Services also refuse single calls at random.
const CERTAIN_AFTER: u32 = 4;

/// Longest time that a service may name.
const LONGEST_ASKED: Duration = Duration::from_hours(24);

/// A limit per minute admits a call within a minute. A service that admits none for longer, counted from the time that
/// it has named, is not limiting the rate, so its refusals go to the callers.
const HOPELESS_AFTER: Duration = Duration::from_secs(75);

/// State after refusals.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PaceHold {
    /// Time until which no call is made.
    until: Option<Instant>,
    /// Time until which the service wants no call.
    promised: Option<Instant>,
    /// Time of the refusal that began the hold.
    set_at: Option<Instant>,
    /// Refusals since the last accepted call, each hold counted once.
    refusals: u32,
    /// First of them.
    since: Option<Instant>,
    /// Longest time that the service has named since then.
    longest: Duration,
}

impl PaceHold {
    /// Notes a refusal of a call that was sent at `sent`. Returns true if it begins a new hold; refusals of calls that
    /// were sent before the hold belong to it.
    pub(super) fn refused(&mut self, sent: Instant, asked: Option<Duration>, now: Instant) -> bool {
        // A longer time is an error of the service.
        let asked = asked.filter(|asked| *asked <= LONGEST_ASKED);
        self.longest = self.longest.max(asked.unwrap_or_default());
        // A small call may be made during a hold. Its refusal confirms the hold.
        let is_new = self.set_at.is_none_or(|set_at| sent >= set_at) && !self.covers(sent);
        if is_new {
            self.refusals += 1;
            self.set_at = Some(now);
            self.since.get_or_insert(now);
        }
        // A time that was too short before, or that was rounded to nothing, says little.
        let wait = if self.refusals > 1 {
            asked.unwrap_or_default().max(self.guess())
        } else {
            asked.unwrap_or_else(|| self.guess()).max(LEAST_HOLD)
        };
        let wait = if wait > LONGEST_HOLD { self.doubled(FIRST_TRIAL).min(LONGEST_HOLD) } else { wait };
        let (until, promised) = (now.checked_add(wait), asked.and_then(|asked| now.checked_add(asked)));
        if is_new {
            (self.until, self.promised) = (until, promised);
        } else if asked.is_some() {
            (self.until, self.promised) = (self.until.max(until), self.promised.max(promised));
        }
        is_new
    }

    /// Notes an answer to a call that was sent at `sent`. Returns true if a hold has ended by it.
    pub(super) fn accepted(&mut self, sent: Instant) -> bool {
        let is_after = self.set_at.is_some_and(|set_at| sent >= set_at);
        if is_after {
            *self = Self::default();
        } else {
            self.accepts_others();
        }
        is_after
    }

    /// Notes that the service still accepts calls, so it limits their rate.
    pub(super) const fn accepts_others(&mut self) {
        (self.since, self.longest) = (None, Duration::ZERO);
    }

    /// Returns true if calls are or were held back at this time.
    pub(super) fn covers(&self, at: Instant) -> bool {
        self.set_at.is_some_and(|set_at| at >= set_at) && !self.wait(at).is_zero()
    }

    /// Returns the time until a call may be made.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        if self.is_over(now) {
            return Duration::ZERO;
        }
        self.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// Returns the time that the service has named, if calls wait for it.
    pub(super) fn promised(&self, now: Instant) -> Option<Duration> {
        self.promised.map(|promised| promised.saturating_duration_since(now)).filter(|wait| !wait.is_zero())
    }

    /// Returns the named time if it is certain enough to refuse calls for it: a time of more than a minute is checked by
    /// three trials first.
    pub(super) fn certain(&self, now: Instant) -> Option<Duration> {
        let named = self.promised.zip(self.set_at).map(|(promised, set_at)| promised.saturating_duration_since(set_at));
        let is_checked = self.refusals >= CERTAIN_AFTER || named.is_none_or(|named| named <= LONGEST_HOLD);
        self.promised(now).filter(|_| is_checked)
    }

    /// Returns true if only one call is tried at a time: the service has refused the first call after a hold, or has
    /// named a later time.
    pub(super) fn is_probing(&self, now: Instant) -> bool {
        let is_named = self.promised(now).is_some();
        is_named || (self.is_repeated() && !self.is_over(now))
    }

    /// Returns true if the service has refused the first call after a hold, too.
    pub(super) const fn is_repeated(&self) -> bool {
        self.refusals > 1
    }

    /// Returns true if calls are held back no more although the service refuses them: waiting does not help.
    fn is_over(&self, now: Instant) -> bool {
        self.promised(now).is_none() && self.is_hopeless(now)
    }

    /// Returns true if waiting does not help.
    pub(super) fn is_hopeless(&self, now: Instant) -> bool {
        let patience = HOPELESS_AFTER + self.longest;
        self.since.is_some_and(|since| now.saturating_duration_since(since) > patience)
    }

    fn guess(&self) -> Duration {
        self.doubled(FIRST_HOLD).min(LONGEST_GUESS)
    }

    /// Returns a time, doubled for each refusal after the first.
    fn doubled(&self, first: Duration) -> Duration {
        first.saturating_mul(1 << self.refusals.saturating_sub(1).min(8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn holds_grow_until_a_call_is_accepted() {
        let (mut hold, mut now) = (PaceHold::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..8 {
            assert!(hold.refused(now, None, now));
            waits.push(hold.wait(now).as_millis());
            now += hold.wait(now);
        }
        assert_eq!(waits, [100, 200, 400, 800, 1_600, 3_200, 6_400, 8_000]);
        assert!(hold.is_probing(now));
        assert!(hold.accepted(now));
        assert_eq!((hold.wait(now), hold.is_probing(now)), (Duration::ZERO, false));
    }

    #[test]
    fn refusals_of_calls_that_were_under_way_belong_to_the_same_hold() {
        let (mut hold, now) = (PaceHold::default(), Instant::now());
        assert!(hold.refused(now, None, now + SECOND));
        for _ in 0..20 {
            assert!(!hold.refused(now, None, now + SECOND));
        }
        assert_eq!(hold.wait(now + SECOND), FIRST_HOLD);
        assert!(!hold.accepted(now), "an answer to an earlier call does not end it");
        assert!(!hold.refused(now, Some(3 * SECOND), now + SECOND));
        assert_eq!(hold.wait(now + SECOND), 3 * SECOND);
    }

    #[test]
    fn a_time_of_nothing_does_not_make_a_loop() {
        let (mut hold, mut now) = (PaceHold::default(), Instant::now());
        for _ in 0..8 {
            hold.refused(now, Some(Duration::ZERO), now);
            now += hold.wait(now);
        }
        assert_eq!(hold.wait(now - Duration::from_millis(1)).as_millis(), 1);
        hold.refused(now, Some(Duration::ZERO), now);
        assert_eq!(hold.wait(now), LONGEST_GUESS);
    }

    #[test]
    fn a_long_hold_is_tried_before_and_keeps_its_promise() {
        let (mut hold, begun) = (PaceHold::default(), Instant::now());
        let (mut now, mut waits) = (begun, Vec::new());
        for _ in 0..8 {
            hold.refused(now, Some(begun + 600 * SECOND - now), now);
            waits.push(hold.wait(now).as_secs());
            assert_eq!(hold.promised(now), Some(begun + 600 * SECOND - now));
            now += hold.wait(now);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        let mut hold = PaceHold::default();
        hold.refused(begun, Some(600 * SECOND), begun);
        assert_eq!(hold.certain(begun), None, "calls wait for trials");
        for later in [1, 3] {
            hold.refused(begun + later * SECOND, Some((600 - later) * SECOND), begun + later * SECOND);
            assert_eq!(hold.certain(begun + later * SECOND), None, "the service may refuse some calls at random");
        }
        hold.refused(begun + 7 * SECOND, Some(593 * SECOND), begun + 7 * SECOND);
        assert_eq!(hold.certain(begun + 7 * SECOND), Some(593 * SECOND));
        assert!(!hold.is_hopeless(now + 120 * SECOND), "the service has said how long it takes");
    }

    #[test]
    fn a_service_that_accepts_nothing_for_more_than_a_minute_is_hopeless() {
        let (mut hold, now) = (PaceHold::default(), Instant::now());
        hold.refused(now, None, now);
        assert!(!hold.is_hopeless(now + 70 * SECOND));
        assert!(hold.is_hopeless(now + 80 * SECOND));
        hold.refused(now + 80 * SECOND, None, now + 80 * SECOND);
        let after = (hold.wait(now + 80 * SECOND), hold.is_probing(now + 80 * SECOND));
        assert_eq!(after, (Duration::ZERO, false), "its refusals go to the callers at once");
        hold.accepted(now + 80 * SECOND);
        assert!(!hold.is_hopeless(now + 200 * SECOND));
    }
}
