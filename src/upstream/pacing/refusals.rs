//! What the refusals of a service teach: how long it wants no call, and how many it accepts.

use std::time::Duration;

use tokio::time::Instant;

use super::accepted::AcceptedCalls;
use super::found::FoundRate;
use super::hold::PaceHold;
use super::refusal_share::RefusalShare;
use super::small_calls::{SmallCalls, is_much_smaller};
use super::turn_order::TurnOrder;

/// Time for which a call is tried alone, at most.
const TRIED_ALONE: Duration = Duration::from_secs(5);

/// Time and refusals after which a call is taken for their cause, while others are accepted; fewer refusals if it is
/// larger than any of these.
const A_MINUTE_AND_MORE: Duration = Duration::from_secs(75);
const REFUSALS: u32 = 16;
const LARGE_REFUSALS: u32 = 3;

/// Time after which a further refusal is logged again.
const TOLD_EVERY: Duration = Duration::from_mins(1);

/// Number and share of refused calls from which on a rate is found out, and from which on it is lowered.
const BEGUN: (f64, f64) = (4.0, 0.25);
const LOWERED: (f64, f64) = (2.0, 0.1);

/// What the refusals of one service teach about one credential and model.
#[derive(Debug)]
pub(super) struct Refusals {
    pub(super) hold: PaceHold,
    found: Option<FoundRate>,
    small: SmallCalls,
    accepted: AcceptedCalls,
    /// Accepted and refused calls: those that wait for the hold and the rate, and the small ones that pass them.
    shares: [RefusalShare; 2],
    /// The call that is tried alone, by the time at which it entered.
    probe: Option<Instant>,
    /// Time of the last accepted call, and the tokens of the largest one.
    last_accepted: Option<Instant>,
    largest_accepted: usize,
    /// Time of the last refusal that was logged.
    told: Option<Instant>,
}

/// What an interactive call need not wait for, because it is much smaller than the refused ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Passes {
    pub(super) hold: bool,
    rate: bool,
    /// Tokens that it may have to be small.
    most_tokens: usize,
}

impl Passes {
    /// Returns the number of tokens that the call may carry.
    pub(super) const fn most_tokens(self) -> usize {
        self.most_tokens
    }

    const fn any(self) -> bool {
        self.hold || self.rate
    }
}

impl Refusals {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            hold: PaceHold::default(),
            found: None,
            small: SmallCalls::default(),
            accepted: AcceptedCalls::new(now),
            shares: [RefusalShare::new(now); 2],
            probe: None,
            last_accepted: None,
            largest_accepted: 0,
            told: None,
        }
    }

    /// Returns the time until a call of this order and size may be made. `reserve` is the part of a found rate that is
    /// left to others.
    pub(super) fn wait(&mut self, call: (TurnOrder, usize), reserve: f64, now: Instant) -> Duration {
        if self.found.is_some_and(|found| found.is_outdated(now)) {
            self.found = None;
        }
        let passes = self.passes(call, now);
        let found = self.found.as_mut().filter(|_| !passes.rate);
        let found = found.map_or(Duration::ZERO, |found| found.wait(reserve, now));
        if passes.hold { found } else { found.max(self.hold.wait(now)) }
    }

    /// Returns the time until a call may be tried beside the one that is tried alone.
    pub(super) fn tried_for(&self, call: (TurnOrder, usize), now: Instant) -> Duration {
        let alone = if self.passes(call, now).hold {
            self.small.trial(now).filter(|_| self.hold.covers(now))
        } else {
            self.probe.filter(|_| self.hold.is_probing(now))
        };
        // A trial that takes long must not stop all other calls.
        alone.map_or(Duration::ZERO, |at| TRIED_ALONE.saturating_sub(now.saturating_duration_since(at)))
    }

    /// Returns the time that the service has named, if the call waits for it and it is certain enough to refuse the call.
    pub(super) fn named_wait(&self, call: (TurnOrder, usize), now: Instant) -> Option<Duration> {
        self.hold.certain(now).filter(|_| !self.passes(call, now).hold)
    }

    /// Returns the time until several calls have probably been made.
    pub(super) fn time_for(&self, calls: usize, now: Instant) -> Duration {
        let calls = u32::try_from(calls).unwrap_or(u32::MAX);
        let found = self.found.map_or(Duration::ZERO, |found| {
            Duration::try_from_secs_f64(f64::from(calls) / found.per_second()).unwrap_or(Duration::MAX)
        });
        found.max(self.hold.promised(now).unwrap_or_else(|| self.hold.wait(now)))
    }

    /// Returns true if a call with this many tokens is probably refused for itself: the service has accepted others since
    /// its first refusal. `refusals` is the number of its refusals.
    pub(super) fn is_the_cause(&self, tokens: usize, (first, refusals): (Instant, u32), now: Instant) -> bool {
        // A limit per minute would have admitted it by now.
        if now.saturating_duration_since(first) < A_MINUTE_AND_MORE {
            return false;
        }
        let most = if tokens > self.largest_accepted { LARGE_REFUSALS } else { REFUSALS };
        refusals >= most && self.last_accepted.is_some_and(|at| at > first)
    }

    /// Returns the calls a minute that the service seems to accept, if they had to be found out.
    pub(super) fn found_per_minute(&self) -> Option<f64> {
        self.found.map(|found| found.per_second() * 60.0)
    }

    /// Notes a call that is made.
    pub(super) fn enter(&mut self, call: (TurnOrder, usize), now: Instant) -> Passes {
        let passes = self.passes(call, now);
        if !passes.hold && self.hold.is_probing(now) {
            self.probe = Some(now);
        }
        if passes.hold && self.hold.covers(now) {
            self.small.enter(now);
        }
        if let Some(found) = self.found.as_mut().filter(|_| !passes.rate) {
            found.take(1.0, now);
        }
        passes
    }

    /// Notes the end of a call that entered at this time.
    pub(super) fn leave(&mut self, entered: Instant) {
        self.probe = self.probe.filter(|probe| *probe != entered);
        self.small.leave(entered);
    }

    /// Notes that a call was not made.
    pub(super) fn give_back(&mut self, passes: Passes, now: Instant) {
        if let Some(found) = self.found.as_mut().filter(|_| !passes.rate) {
            found.take(-1.0, now);
        }
    }

    /// Learns that a call with this many tokens, sent at `sent`, was accepted. Returns true if waiting calls may go now.
    pub(super) fn accepted(&mut self, (sent, tokens, passes): (Instant, usize, Passes), now: Instant) -> bool {
        (self.last_accepted, self.largest_accepted) = (Some(now), self.largest_accepted.max(tokens));
        self.accepted.add(tokens, now);
        self.shares[usize::from(passes.any())].accepted(now);
        if passes.hold {
            if self.hold.covers(sent) {
                self.small.accepted(now);
            }
            self.hold.accepts_others();
            return false;
        }
        self.hold.accepted(sent)
    }

    /// Learns that a call with this many tokens, sent at `sent`, was refused for a time. A refusal that `is_explained`
    /// says nothing about the rate that the service accepts.
    pub(super) fn refused(
        &mut self,
        (sent, tokens, passes): (Instant, usize, Passes),
        (is_explained, asked): (bool, Option<Duration>),
        now: Instant,
    ) {
        let is_new = self.hold.refused(sent, asked, now);
        self.small.refused(tokens, passes.hold, now);
        self.shares[usize::from(passes.any())].refused(now);
        if is_new && !is_explained && !self.hold.is_repeated() {
            self.find_rate((tokens, passes.any()), now);
        }
    }

    /// Returns true if a refusal is worth a line in the log.
    pub(super) fn is_news(&mut self, now: Instant) -> bool {
        let is_news = self.told.is_none_or(|told| now.saturating_duration_since(told) >= TOLD_EVERY);
        if is_news {
            self.told = Some(now);
        }
        is_news
    }

    /// Begins or lowers the rate that is found out by trial, if the service refuses a large share of the calls.
    /// `tokens` is the size of a refused call, which perhaps passed others.
    fn find_rate(&mut self, (tokens, passed): (usize, bool), now: Instant) {
        // The rate of large calls is no rate of small ones.
        let (least, share) = if self.found.is_some() && !passed { LOWERED } else { BEGUN };
        let refused = &mut self.shares[usize::from(passed)];
        if !refused.exceeds(least, share) {
            return;
        }
        // The next change needs refusals of its own.
        *refused = RefusalShare::new(now);
        let accepted = self.accepted.per_second(tokens, now);
        match &mut self.found {
            Some(found) if !passed => found.refused((accepted, tokens), now),
            _ => self.found = Some(FoundRate::new((accepted, tokens), now)),
        }
    }

    /// Returns what a call need not wait for.
    pub(super) fn passes(&self, (order, tokens): (TurnOrder, usize), now: Instant) -> Passes {
        let may_pass = !order.is_bulk();
        let hold = may_pass && self.small.is_small(tokens, now);
        let rate = may_pass && self.found.is_some_and(|found| is_much_smaller(tokens, found.tokens()));
        let most_tokens = if hold { self.small.most() } else { usize::MAX };
        Passes { hold, rate, most_tokens }
    }
}
