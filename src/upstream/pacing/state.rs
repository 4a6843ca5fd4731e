//! What a pacer knows: limits, the hold after a refusal, and the calls that wait or are in flight.

use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;

use super::demand::Demand;
use super::limits::{Buckets, LimitFigures, SetLimits};
use super::refusals::{Passes, Refusals};
use super::remainder::Remainders;
use super::replicas::Replicas;
use super::reported::{self, Resource};
use super::turn_order::{TurnOrder, TurnWish};

/// Part of each limit that bulk calls leave to interactive ones, also of those whose size is not known.
const RESERVE: f64 = 0.1;

/// Time after which one call is tried although the reported limits do not admit it.
const TRIED_EVERY: Duration = Duration::from_mins(1);

/// State of one pacer.
#[derive(Debug)]
pub(super) struct PaceState {
    configured: Buckets,
    reported: Buckets,
    remainders: Remainders,
    pub(super) refusals: Refusals,
    concurrent: Option<usize>,
    in_flight: usize,
    /// Time at which the newest call entered.
    entered: Option<Instant>,
    /// Number of waiting calls of each order.
    waiting: [usize; TurnOrder::COUNT],
    /// False if only the configured limits count.
    learns: bool,
    limits: SetLimits,
    /// Use of the configured limits, and the other replicas that use them.
    pub(super) demand: Demand,
    pub(super) replicas: Replicas,
}

/// Whether a call may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    Now,
    /// After this time.
    Later(Duration),
    /// After another call has ended or got its turn.
    AfterOthers,
}

/// Limits of a pacer as they are now, for operators.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PaceFigures {
    /// Limit of calls.
    pub requests: Option<LimitFigures>,
    /// Limit of tokens.
    pub tokens: Option<LimitFigures>,
    /// Calls a minute that the service seems to accept, if it has refused some without naming a limit.
    pub found_per_minute: Option<f64>,
    /// Time for which calls are held back after a refusal.
    pub held: Duration,
    /// Interactive calls that wait for their turn.
    pub interactive_waiting: usize,
    /// Bulk calls that wait for their turn.
    pub bulk_waiting: usize,
    /// Calls in flight.
    pub in_flight: usize,
}

impl PaceFigures {
    /// Returns true if there is a limit, a wait or a call in flight.
    pub(super) fn is_of_interest(&self) -> bool {
        let has_limit = self.requests.is_some() || self.tokens.is_some() || self.found_per_minute.is_some();
        let is_busy = self.interactive_waiting + self.bulk_waiting + self.in_flight > 0;
        has_limit || is_busy || !self.held.is_zero()
    }
}

impl PaceState {
    pub(super) fn new(limits: &SetLimits, learns: bool, now: Instant) -> Self {
        Self {
            configured: Buckets::configured(limits, now),
            reported: Buckets::default(),
            remainders: Remainders::default(),
            refusals: Refusals::new(now),
            concurrent: limits.concurrent,
            in_flight: 0,
            entered: None,
            waiting: [0; TurnOrder::COUNT],
            learns,
            limits: *limits,
            demand: Demand::new(limits),
            replicas: Replicas::default(),
        }
    }

    /// Returns true if limits are learned from the service's answers.
    pub(super) const fn learns(&self) -> bool {
        self.learns
    }

    /// Returns the wish of a call with the line in which it waits.
    pub(super) fn in_line(&self, wish: &TurnWish, now: Instant) -> TurnWish {
        let is_small = self.refusals.passes((wish.order, wish.tokens), now).hold;
        TurnWish { order: if is_small { TurnOrder::Small } else { wish.order }, ..*wish }
    }

    /// Counts a waiting call. Returns its wish with the line in which it waits.
    pub(super) fn queue(&mut self, wish: &TurnWish, now: Instant) -> TurnWish {
        let wish = self.in_line(wish, now);
        self.demand.wait(now);
        self.waiting[wish.order.index()] += 1;
        wish
    }

    /// Ends the count of a waiting call.
    pub(super) const fn unqueue(&mut self, order: TurnOrder) {
        self.waiting[order.index()] -= 1;
    }

    /// Returns true if a call of this order or an earlier one waits.
    pub(super) fn is_queued(&self, order: TurnOrder) -> bool {
        self.waiting[..=order.index()].iter().any(|waiting| *waiting > 0)
    }

    /// Returns whether a call may be made. A call that has `aged` yields to no other.
    pub(super) fn readiness(&mut self, order: TurnOrder, tokens: usize, aged: bool, now: Instant) -> Readiness {
        let yields = !aged && self.waiting[..order.index()].iter().any(|waiting| *waiting > 0);
        let is_full = self.concurrent.is_some_and(|most| self.in_flight >= most);
        if yields || is_full {
            return Readiness::AfterOthers;
        }
        let wait = self.wait(order, tokens, aged, now).max(self.refusals.tried_for((order, tokens), now));
        if wait.is_zero() { Readiness::Now } else { Readiness::Later(wait) }
    }

    /// Returns the time until the limits admit a call.
    pub(super) fn wait(&mut self, order: TurnOrder, tokens: usize, aged: bool, now: Instant) -> Duration {
        let reserve = if order.is_bulk() && !aged { RESERVE } else { 0.0 };
        let limits = self.configured.wait(tokens, reserve, now).max(self.reported_wait(tokens, reserve, now));
        // A limit that is full again at a fixed time gives nothing back before, so aged calls leave its reserve as well.
        let left = if order.is_bulk() { self.remainders.wait(tokens, RESERVE, now) } else { Duration::ZERO };
        limits.max(left).max(self.refusals.wait((order, tokens), reserve, now))
    }

    /// Returns the tokens of the largest call that the limits of tokens admit at once. A larger one would need a full
    /// bucket, and calls after it would wait until it is paid.
    pub(super) fn largest_call(&self, order: TurnOrder) -> usize {
        let part = if order.is_bulk() { 1.0 - 2.0 * RESERVE } else { 1.0 };
        whole(part * self.configured.most_tokens().min(self.reported.most_tokens())).max(1)
    }

    /// Returns the tokens that the limits admit in a call beyond those of its turn.
    pub(super) fn room(&mut self, order: TurnOrder, now: Instant) -> usize {
        let reserve = if order.is_bulk() { RESERVE } else { 0.0 };
        let left = self.configured.tokens_beyond(reserve, now).min(self.reported.tokens_beyond(reserve, now));
        let rest = if order.is_bulk() { self.remainders.tokens_beyond(RESERVE) } else { f64::INFINITY };
        whole(left.min(rest))
    }

    /// Returns the time until the reported limits admit a call. One call a minute is tried in any case, because only an
    /// answer corrects a report that was wrong.
    fn reported_wait(&mut self, tokens: usize, reserve: f64, now: Instant) -> Duration {
        let wait = self.reported.wait(tokens, reserve, now);
        if self.in_flight > 0 {
            return wait;
        }
        let since = self.entered.map_or(TRIED_EVERY, |at| now.saturating_duration_since(at));
        wait.min(TRIED_EVERY.saturating_sub(since))
    }

    /// Returns the time until a call that waits now has probably been made.
    pub(super) fn time_for(&mut self, order: TurnOrder, tokens: usize, now: Instant) -> Duration {
        let ahead: usize = self.waiting[..=order.index()].iter().sum();
        self.time_for_calls(ahead.max(1), tokens, now)
    }

    /// Returns the time until calls with this many tokens each have probably been made.
    pub(super) fn time_for_calls(&mut self, calls: usize, tokens: usize, now: Instant) -> Duration {
        let limits = self.configured.time_for(calls, tokens, now).max(self.reported.time_for(calls, tokens, now));
        limits.max(self.refusals.time_for(calls, now))
    }

    /// Returns the number of the next exchange with other replicas, and the part of the limits that this one would use.
    pub(super) fn next_exchange(&mut self, now: Instant) -> (u64, f64) {
        let waiting = self.waiting.iter().sum();
        self.demand.exchange(waiting, now)
    }

    /// Limits this replica to a part of the configured limits.
    pub(super) fn set_share(&mut self, share: f64, now: Instant) {
        self.configured.set_share(&self.limits, share, now);
    }

    /// Counts a call that is made.
    pub(super) fn enter(&mut self, order: TurnOrder, tokens: usize, now: Instant) -> Passes {
        self.in_flight += 1;
        self.entered = Some(now);
        self.demand.begin(tokens, now);
        self.configured.take(tokens, now);
        self.reported.take(tokens, now);
        self.remainders.take(tokens, now);
        self.refusals.enter((order, tokens), now)
    }

    /// Ends the count of a call in flight that entered at this time. Returns true if others wait.
    pub(super) fn leave(&mut self, entered: Instant, tokens: usize) -> bool {
        self.in_flight -= 1;
        self.remainders.ended(tokens);
        self.refusals.leave(entered);
        self.has_waiting()
    }

    /// Returns true if any call waits.
    pub(super) fn has_waiting(&self) -> bool {
        self.waiting.iter().any(|waiting| *waiting > 0)
    }

    /// Gives a call back that was counted and not made.
    pub(super) fn give_back(&mut self, tokens: usize, passes: Passes, now: Instant) {
        self.demand.give_back(tokens);
        self.configured.give_back(tokens, now);
        self.reported.give_back(tokens, now);
        self.remainders.give_back(tokens);
        self.refusals.give_back(passes, now);
    }

    /// Corrects the tokens of a counted call.
    pub(super) fn correct(&mut self, before: usize, after: usize, now: Instant) {
        self.configured.correct(before, after, now);
        self.reported.correct(before, after, now);
        self.remainders.correct(before, after);
    }

    /// Learns from an answer to a call with this many tokens that was sent at `sent`. Returns true if waiting calls may go now.
    pub(super) fn accepted(
        &mut self,
        (sent, tokens, passes): (Instant, usize, Passes),
        headers: &HeaderMap,
        now: Instant,
    ) -> bool {
        if self.learns {
            self.read_report(headers, tokens, now);
        }
        self.refusals.accepted((sent, tokens, passes), now)
    }

    /// Learns from a refusal of a call with this many tokens that was sent at `sent`, perhaps for several requests.
    pub(super) fn refused(
        &mut self,
        (sent, tokens, passes): (Instant, usize, Passes),
        is_merged: bool,
        (headers, asked): (Option<&HeaderMap>, Option<Duration>),
        now: Instant,
    ) {
        if !self.learns {
            return;
        }
        if let Some(headers) = headers {
            self.read_report(headers, tokens, now);
        }
        // A limit that the service reports as used up explains the refusal, and so may the size of a call for several
        // requests. Otherwise the rate must be found out.
        let is_explained = is_merged || !self.reported.wait(tokens, 0.0, now).is_zero();
        self.refusals.refused((sent, tokens, passes), (is_explained, asked), now);
    }

    /// Returns the used share of the scarcest limit, from 0 to 1.
    pub(super) fn used(&mut self, now: Instant) -> f64 {
        self.configured.used(now).max(self.reported.used(now))
    }

    /// Returns the limits as they are now.
    pub(super) fn figures(&mut self, now: Instant) -> PaceFigures {
        let mut scarcer = |resource| {
            let (set, reported) = (self.configured.figures(resource, now), self.reported.figures(resource, now));
            match (set, reported) {
                (Some(set), Some(reported)) => Some(if set.per_minute <= reported.per_minute { set } else { reported }),
                (set, reported) => set.or(reported),
            }
        };
        let bulk =
            [TurnOrder::Hastened, TurnOrder::BulkAgain, TurnOrder::Bulk].map(|order| self.waiting[order.index()]);
        let (all, bulk): (usize, usize) = (self.waiting.iter().sum(), bulk.iter().sum());
        PaceFigures {
            requests: scarcer(Resource::Requests),
            tokens: scarcer(Resource::Tokens),
            found_per_minute: self.refusals.found_per_minute(),
            held: self.refusals.hold.wait(now),
            interactive_waiting: all - bulk,
            bulk_waiting: bulk,
            in_flight: self.in_flight,
        }
    }

    /// Learns from the headers of an answer to a call with this many tokens.
    fn read_report(&mut self, headers: &HeaderMap, tokens: usize, now: Instant) {
        // The call that brings the report is still counted.
        let others = self.in_flight.saturating_sub(1);
        for resource in Resource::ALL {
            if let Some(report) = reported::read(headers, resource) {
                self.reported.report(resource, (&report, others == 0), now);
                self.remainders.report(resource, (&report, tokens, others), (RESERVE, now));
            }
        }
    }
}

/// Returns the whole part of a number, zero for negative ones.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the conversion saturates")]
const fn whole(number: f64) -> usize {
    number as usize
}
