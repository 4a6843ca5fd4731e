//! Gives calls their turns, one pacer for each credential and model at one place.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::limits::SetLimits;
use super::refusals::Passes;
use super::replicas::Replicas;
use super::state::{PaceFigures, PaceState, Readiness};
use super::turn_order::{TurnOrder, TurnWish};
use crate::upstream::Class;
use crate::upstream::{Failure, FairOrder};

/// A bulk call that has been the next one for this long yields to interactive calls no more, so bulk never starves.
const AGED: Duration = Duration::from_secs(2);

/// Part of the limits for a replica that does not know of the others yet.
const UNKNOWN: f64 = 0.1;

/// Part of an equal share that an idle replica keeps.
const IDLE: f64 = 0.05;

/// Maximum length of a model's name.
const MAX_NAME_BYTES: usize = 128;

/// Pacer of one credential and model. Used by `Arc`.
#[derive(Debug)]
pub(in crate::upstream) struct Pacer {
    /// Name of the model, for operators.
    model: String,
    state: Mutex<PaceState>,
    /// Notified if a waiting call may go earlier than it has computed.
    changed: Notify,
    lines: [WaitingLine; TurnOrder::COUNT],
}

/// The calls of one order that wait. Callers get their turns one after the other.
#[derive(Debug, Default)]
struct WaitingLine {
    callers: FairOrder,
    /// Held by the next call.
    head: tokio::sync::Mutex<()>,
}

/// Permission to make one call. A turn that is dropped before `begin` is given back.
#[derive(Debug)]
pub(in crate::upstream) struct PaceTurn {
    pacer: Arc<Pacer>,
    order: TurnOrder,
    pub(super) tokens: usize,
    passes: Passes,
    entered: Instant,
    sent: Option<Instant>,
}

/// Counts a waiting call until it is dropped.
struct QueuedTurn<'a> {
    pacer: &'a Pacer,
    order: TurnOrder,
}

impl Drop for QueuedTurn<'_> {
    fn drop(&mut self) {
        self.pacer.state().unqueue(self.order);
        // Calls of later orders may have yielded to this one.
        self.pacer.changed.notify_waiters();
    }
}

impl Pacer {
    /// Creates a pacer. If it does not learn, only the configured limits count.
    pub(super) fn new(model: &str, limits: &SetLimits, learns: bool) -> Self {
        let state = Mutex::new(PaceState::new(limits, learns, Instant::now()));
        let model = model[..model.floor_char_boundary(MAX_NAME_BYTES)].to_owned();
        Self { model, state, changed: Notify::new(), lines: Default::default() }
    }

    /// Returns a turn if the limits admit the call now and no other one waits before it.
    pub(in crate::upstream) fn try_turn(self: &Arc<Self>, wish: &TurnWish) -> Option<PaceTurn> {
        let (mut state, now) = (self.state(), Instant::now());
        let wish = state.in_line(wish, now);
        if state.is_queued(wish.order) {
            return None;
        }
        self.enter(&mut state, &wish, false, now).ok()
    }

    /// Waits for a turn until a point in time. Then, or if the service has named a later time, returns the time that
    /// the call would probably have to wait from now on.
    pub(in crate::upstream) async fn turn(
        self: &Arc<Self>,
        wish: &TurnWish,
        until: Instant,
    ) -> Result<PaceTurn, Duration> {
        let wish = &self.state().queue(wish, Instant::now());
        let line = &self.lines[wish.order.index()];
        let _queued = QueuedTurn { pacer: self, order: wish.order };
        let Ok(_head) = timeout_at(until, line.callers.wait(wish.caller, line.head.lock())).await else {
            return Err(self.time_for(wish));
        };
        let aged_at = Instant::now() + AGED;
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Registered before the look at the state, so no change between the two is missed.
            changed.as_mut().enable();
            let now = Instant::now();
            let aged = now >= aged_at;
            let entered = self.enter(&mut self.state(), wish, aged, now);
            let readiness = match entered {
                Ok(turn) => return Ok(turn),
                Err(readiness) => readiness,
            };
            let named = self.state().refusals.named_wait((wish.order, wish.tokens), now);
            if now >= until || named.is_some_and(|named| now + named > until) {
                return Err(self.time_for(wish));
            }
            let mut wake = match readiness {
                Readiness::Later(wait) => now.checked_add(wait).map_or(until, |at| at.min(until)),
                Readiness::Now | Readiness::AfterOthers => until,
            };
            if !aged && wish.order.is_bulk() {
                wake = wake.min(aged_at);
            }
            tokio::select! {
                () = changed => {}
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Returns the time until calls with this many tokens each have been made. The number of waiting calls says too much
    /// if their inputs will share a call. A turn that depends on other calls has no known time.
    pub(in crate::upstream) fn time_for_calls(&self, (calls, tokens): (usize, usize)) -> Option<Duration> {
        let time = self.state().time_for_calls(calls, tokens, Instant::now());
        Some(time).filter(|time| !time.is_zero())
    }

    /// Returns true if [`try_turn`](Self::try_turn) would return a turn now.
    pub(in crate::upstream) fn admits(&self, wish: &TurnWish) -> bool {
        let (mut state, now) = (self.state(), Instant::now());
        let wish = state.in_line(wish, now);
        !state.is_queued(wish.order) && state.readiness(wish.order, wish.tokens, false, now) == Readiness::Now
    }

    /// Returns the tokens of the largest call that the limits admit at once.
    pub(in crate::upstream) fn largest_call(&self, order: TurnOrder) -> usize {
        self.state().largest_call(order)
    }

    /// Returns the used share of the scarcest limit, from 0 to 1.
    pub(in crate::upstream) fn used(&self) -> f64 {
        self.state().used(Instant::now())
    }

    /// Returns true if a call that the service refuses for its rate may be admitted later. A pacer that does not learn
    /// holds no call back, a service that accepts no call at all does not limit the rate, and a call may be refused for
    /// itself. `first` is the time of its first refusal.
    pub(in crate::upstream) fn holds(&self, tokens: usize, (first, refusals): (Instant, u32)) -> bool {
        let (state, now) = (self.state(), Instant::now());
        let learned = &state.refusals;
        state.learns() && !learned.is_the_cause(tokens, (first, refusals), now) && !learned.hold.is_hopeless(now)
    }

    /// Returns the name of the model.
    pub(super) fn model(&self) -> &str {
        &self.model
    }

    /// Limits this replica to a small part of the limits until it knows of the others.
    pub(super) fn begin_sharing(&self) {
        self.state().set_share(UNKNOWN, Instant::now());
    }

    /// Returns true if an exchange with the other replicas is due: `every` so long, while there were calls within
    /// `active`. Otherwise the others use this replica's part.
    pub(super) fn is_due(&self, every: Duration, active: Duration) -> bool {
        let (mut state, now) = (self.state(), Instant::now());
        if state.has_waiting() {
            state.demand.wait(now);
        }
        if state.demand.is_active(active, now) {
            return state.demand.is_older(every, now);
        }
        let share = state.replicas.equal_share() * IDLE;
        state.set_share(share, now);
        false
    }

    /// Returns the number of the next exchange, and the part of the limits that this replica would use.
    pub(super) fn next_exchange(&self) -> (u64, f64) {
        self.state().next_exchange(Instant::now())
    }

    /// Returns the replicas that have written nothing new for so long that they will not return.
    pub(super) fn gone_replicas(&self) -> Vec<String> {
        self.state().replicas.gone()
    }

    /// Takes over what the other replicas have written.
    pub(super) fn learn_others(&self, learn: impl FnOnce(&mut Replicas), wanted: f64) {
        let (mut state, now) = (self.state(), Instant::now());
        learn(&mut state.replicas);
        let share = state.replicas.share(wanted, now);
        state.set_share(share, now);
        drop(state);
        self.changed.notify_waiters();
    }

    /// Takes an equal part of the limits, since the others cannot be reached.
    pub(super) fn lose_others(&self) {
        let mut state = self.state();
        let share = state.replicas.equal_share();
        state.set_share(share, Instant::now());
        drop(state);
        self.changed.notify_waiters();
    }

    /// Returns the limits as they are now.
    pub(super) fn figures(&self) -> PaceFigures {
        self.state().figures(Instant::now())
    }

    fn enter(
        self: &Arc<Self>,
        state: &mut PaceState,
        wish: &TurnWish,
        aged: bool,
        now: Instant,
    ) -> Result<PaceTurn, Readiness> {
        match state.readiness(wish.order, wish.tokens, aged, now) {
            Readiness::Now => {
                let passes = state.enter(wish.order, wish.tokens, now);
                let TurnWish { order, tokens, .. } = *wish;
                Ok(PaceTurn { pacer: Arc::clone(self), order, tokens, passes, entered: now, sent: None })
            }
            other => Err(other),
        }
    }

    fn time_for(&self, wish: &TurnWish) -> Duration {
        self.state().time_for(wish.order, wish.tokens, Instant::now())
    }

    fn state(&self) -> MutexGuard<'_, PaceState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PaceTurn {
    /// Returns true if the call must wait again, because another one was refused since it has its turn.
    pub(in crate::upstream) fn is_held_back(&self) -> bool {
        !self.passes.hold && !self.pacer.state().refusals.hold.wait(Instant::now()).is_zero()
    }

    /// Returns the number of tokens that the call may carry. Others have to wait if it is larger.
    pub(in crate::upstream) fn room(&self) -> usize {
        let room = self.tokens.saturating_add(self.pacer.state().room(self.order, Instant::now()));
        room.min(self.passes.most_tokens())
    }

    /// Begins the call, which carries this many tokens.
    pub(in crate::upstream) fn begin(&mut self, tokens: usize) {
        let now = Instant::now();
        self.sent = Some(now);
        self.correct(tokens, now);
    }

    /// Learns how the call has ended: from the headers of the answer and the tokens that it counts, or from the failure.
    /// `is_merged` is true if it carried several requests.
    pub(in crate::upstream) fn ended(mut self, result: Result<(&HeaderMap, Option<u64>), &Failure>, is_merged: bool) {
        match result {
            Ok((headers, tokens)) => self.answered(headers, tokens),
            Err(failure) if failure.class == Class::Throttled && failure.may_be_retried() => {
                self.refused(failure, is_merged);
            }
            // The service has counted nothing.
            Err(failure) if failure.too_large_by().is_some() => self.correct(0, Instant::now()),
            // It may be refused for another reason than its rate.
            Err(failure) if failure.class == Class::Throttled => {}
            // The service has admitted the call, whatever became of it.
            Err(Failure { reply: Some(reply), .. }) => self.answered(&reply.headers, None),
            // A lost connection says nothing about the limits.
            Err(_) => {}
        }
    }

    /// Learns from the answer, which may say how many tokens the call had.
    fn answered(&mut self, headers: &HeaderMap, tokens: Option<u64>) {
        let now = Instant::now();
        if let Some(tokens) = tokens.and_then(|tokens| usize::try_from(tokens).ok()) {
            self.correct(tokens, now);
        }
        let sent = (self.sent.unwrap_or(now), self.tokens, self.passes);
        if self.pacer.state().accepted(sent, headers, now) {
            self.pacer.changed.notify_waiters();
        }
    }

    /// Learns that the service has refused the call for its rate.
    fn refused(&self, failure: &Failure, is_merged: bool) {
        let now = Instant::now();
        let headers = failure.reply.as_ref().map(|reply| &reply.headers);
        let sent = (self.sent.unwrap_or(now), self.tokens, self.passes);
        let mut state = self.pacer.state();
        state.refused(sent, is_merged, (headers, failure.retry_after()), now);
        let is_news = state.learns() && state.refusals.is_news(now);
        drop(state);
        if is_news {
            let (model, named_s) = (self.pacer.model(), failure.retry_after().map(|named| named.as_secs_f64()));
            tracing::info!(model, named_s, "the upstream limits the rate: calls wait for their turn");
        }
    }

    fn correct(&mut self, tokens: usize, now: Instant) {
        self.pacer.state().correct(self.tokens, tokens, now);
        self.tokens = tokens;
    }
}

impl Drop for PaceTurn {
    fn drop(&mut self) {
        let mut state = self.pacer.state();
        if self.sent.is_none() {
            state.give_back(self.tokens, self.passes, Instant::now());
        }
        let others_wait = state.leave(self.entered, self.tokens);
        drop(state);
        // They may have waited for the end of this call, or for what it has given back.
        if others_wait {
            self.pacer.changed.notify_waiters();
        }
    }
}
