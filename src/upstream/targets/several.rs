//! The way of a call through several targets: from one to the next until one has answered.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::Uri;
use tokio::time::Instant;

use super::choice::{Choice, NO_ROOM_PAUSE, Next, RoutedCall, TurnLine};
use super::gate::Gate;
use super::place::TargetPlace;
use super::verdict::{as_seen_by_callers, is_limit, moves_on, no_target, not_in_time, of_comparison, too_long, worse};
use crate::config::Live;
use crate::observe::logs::{Throttled, shorten_for_log};
use crate::observe::metrics::{BreakerState, Metrics};
use crate::upstream::answered::{Answered, CallInfo};
use crate::upstream::call::Call;
use crate::upstream::paced::{wait_aside, wait_for_turn};
use crate::upstream::pacing::PaceTurn;
use crate::upstream::permit::CallPermit;
use crate::upstream::retry::retry_deadline;
use crate::upstream::{Class, Failure, LaneProperties};
use crate::wire::Encoding;

const REFUSES: &str = "a target refuses its key or does not know the model; the other targets serve its calls";

/// Several targets, with what is known of each of them.
pub(super) struct Several {
    pub(super) places: Vec<Arc<TargetPlace>>,
    /// Base URL of the lanes' addresses: that of the first target, or `upstream.identity`.
    pub(super) first: Uri,
    pub(super) gate: Gate,
    pub(super) live: Live,
    pub(super) metrics: Arc<Metrics>,
    pub(super) throttled: Throttled,
}

impl Several {
    /// Makes a call at one place after the other until one has answered it.
    pub(super) async fn execute(
        &self,
        mut request: RoutedCall<'_>,
        permit: &mut CallPermit,
    ) -> Result<Answered, Failure> {
        let mut last: Option<Failure> = None;
        loop {
            let next = self.next_in_turn(&mut request, permit, &mut last).await?;
            let (place, turn) = match next {
                Next::Go(place, turn) => (place, turn),
                Next::Examine(place, turn) => {
                    let begun = Instant::now();
                    if let Err(failure) = self.examine(&place, (&request, turn)).await {
                        self.left(&place, &mut request, (&failure, begun));
                        last = Some(worse(last, of_comparison(failure)));
                    }
                    continue;
                }
                Next::LookAgain(wait) if pause(&request, permit, wait).await => continue,
                Next::LookAgain(_) | Next::Queue(_) | Next::Nowhere => return Err(last.unwrap_or_else(no_target)),
            };
            let (begun, waits) = (Instant::now(), request.is_last(&self.places, &place) && !request.may_reopen());
            let failure = match self.call(&place, (&request, turn, waits), permit).await {
                Ok(answered) => return Ok(answered),
                Err(failure) => as_seen_by_callers(failure, &place),
            };
            if waits && is_limit(&failure) {
                // The call has waited there as long as it could.
                self.left(&place, &mut request, (&failure, begun));
                return Err(not_in_time(failure, last));
            }
            // A place that learns from the failure is asked for numbers next.
            if !place.learns_from(&failure) {
                if !moves_on(&failure) {
                    return Err(failure);
                }
                self.left(&place, &mut request, (&failure, begun));
            }
            last = Some(worse(last, failure));
        }
    }

    /// Returns the next step of a call, after its wait in the lines if there is one. `last` is its last failure.
    async fn next_in_turn(
        &self,
        request: &mut RoutedCall<'_>,
        permit: &mut CallPermit,
        last: &mut Option<Failure>,
    ) -> Result<Next, Failure> {
        loop {
            match self.next(request, permit) {
                // A target that failed a moment ago may be free sooner.
                Next::Queue(_) if request.reopen() => {}
                Next::Nowhere if last.as_ref().is_some_and(is_limit) && request.reopen() => {}
                Next::Queue(lines) => match self.queue(request, &lines, permit).await {
                    Ok(next) => return Ok(next),
                    Err(late) => {
                        let late = not_in_time(late, last.take());
                        let choice = Choice::new(&self.places, request, permit.claim());
                        if !choice.is_some_and(|choice| choice.has_other(&lines)) {
                            return Err(late);
                        }
                        // The others have failed a moment ago.
                        request.give_up(&lines);
                        *last = Some(late);
                    }
                },
                next => return Ok(next),
            }
        }
    }

    fn next(&self, request: &RoutedCall<'_>, permit: &CallPermit) -> Next {
        if let Some(choice) = Choice::new(&self.places, request, permit.claim()) {
            return choice.next();
        }
        let only = request.open(&self.places).next();
        only.map_or(Next::Nowhere, |place| Next::Go(Arc::clone(place), None))
    }

    /// Waits in all of the lines until the first turn comes, or until something else has changed.
    async fn queue(
        &self,
        request: &RoutedCall<'_>,
        lines: &[TurnLine],
        permit: &mut CallPermit,
    ) -> Result<Next, Failure> {
        let until = retry_deadline(&request.call.deadlines(), Class::Throttled, Duration::ZERO);
        let claim = permit.claim();
        let look = || Choice::new(&self.places, request, claim);
        let is_as_before = || {
            let is_up = |line: &TurnLine| line.place.executor.breaker.state() == BreakerState::Closed;
            lines.iter().all(is_up) && look().is_some_and(|choice| !choice.has_free())
        };
        let turn = wait_for_turn(first_turn(lines, until), (claim.priority, &is_as_before), &self.metrics);
        let Some((line, turn)) = wait_aside((request.call, permit), turn, until).await? else {
            return Ok(Next::LookAgain(Duration::ZERO));
        };
        // Calls for other models may have taken the room meanwhile.
        if !line.place.has_room() {
            return Ok(Next::LookAgain(NO_ROOM_PAUSE));
        }
        Ok(look().map_or(Next::Nowhere, |choice| choice.go(&line.place, Some(turn))))
    }

    /// Makes the call at a place. While others are left, it gets one attempt. At the last one, the call waits until the
    /// rate limit admits it.
    async fn call(
        &self,
        place: &Arc<TargetPlace>,
        (request, turn, waits): (&RoutedCall<'_>, Option<PaceTurn>, bool),
        permit: &mut CallPermit,
    ) -> Result<Answered, Failure> {
        let reference = request.gate.as_ref().and_then(|gate| gate.reference());
        let dimension = reference.as_ref().map(|reference| reference.dimension());
        let there = place.properties(request.properties, (&self.first, dimension)).map_err(too_long)?;
        let numbers = Some(Encoding::Float).filter(|_| place.asks_for_numbers());
        let is_rewritten = there.space.model != request.properties.space.model || numbers.is_some();
        let there = LaneProperties { encoding: numbers.unwrap_or(there.encoding), ..there };
        let body = if is_rewritten { (request.call.written)(&there.space, numbers) } else { request.call.body.clone() };
        let attempts = if request.is_last(&self.places, place) { request.call.attempts } else { 1 };
        let encoding = numbers.unwrap_or(request.call.encoding);
        let call = Call { body, encoding, attempts, waits, ..*request.call };
        let _under_way = place.enter();
        permit.set_turn(turn);
        let mut answered = place.executor.execute(&there, &call, permit).await?;
        if let Some(gate) = &request.gate {
            gate.answered(place.index);
        }
        // All targets of a model have one name for it, or each change of the target would look like a new model.
        if let (Some(info), Some(reference)) = (Arc::get_mut(&mut answered.call), reference) {
            let CallInfo { model, .. } = info;
            *model = Some(reference.model.to_string());
        }
        Ok(answered)
    }

    /// Notes that a call leaves a place.
    fn left(&self, place: &Arc<TargetPlace>, request: &mut RoutedCall<'_>, (failure, begun): (&Failure, Instant)) {
        request.leave(place, failure);
        self.metrics.targets.left(place.index);
        if let Some(gate) = &request.gate {
            gate.hold(place.index, begun, (failure.retry_after(), failure.class == Class::Throttled));
        }
        if failure.class == Class::Refused && self.throttled.admits(REFUSES) {
            let (target, model) = (&*place.target.name, request.properties.space.model_name());
            let status = failure.reply.as_ref().map_or(0, |reply| reply.status.as_u16());
            tracing::error!(target, model = &*shorten_for_log(model), status, "{REFUSES}");
        }
    }
}

/// Waits before another look at the places. Returns false if the time of the call is over.
async fn pause(request: &RoutedCall<'_>, permit: &mut CallPermit, wait: Duration) -> bool {
    let deadline = request.call.deadlines().into_iter().max().unwrap_or_else(Instant::now);
    // As for the wait before a retry: it holds neither memory nor a permit.
    request.call.reservation.give_up();
    let in_time = Instant::now() < deadline && permit.pause(wait, deadline).await;
    if in_time {
        request.call.reservation.take_again().await;
    }
    in_time
}

/// Returns the turn that comes first, with its line. Fails with the shortest time that a turn would take.
async fn first_turn(lines: &[TurnLine], until: Instant) -> Result<(&TurnLine, PaceTurn), Duration> {
    let mut turns: FuturesUnordered<_> =
        lines.iter().map(async |line| line.pacer.turn(&line.wish, until).await.map(|turn| (line, turn))).collect();
    let mut shortest = Duration::MAX;
    while let Some(turn) = turns.next().await {
        match turn {
            Ok(first) => return Ok(first),
            Err(wait) => shortest = shortest.min(wait),
        }
    }
    Err(shortest)
}
