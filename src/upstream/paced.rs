//! Turns of calls: a call waits until the service's rate limits admit it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::call::Call;
use super::call_executor::CallExecutor;
use super::next_step::Tries;
use super::pacing::{PaceReport, PaceSharing, PaceTurn, Pacer, Pacers, TurnOrder, TurnWish};
use super::permit::{CallPermit, Claim};
use super::retry::retry_deadline;
use super::{Class, Failure, LaneProperties};
use crate::config::Priority;
use crate::observe::metrics::{BreakerState, Metrics};
use crate::process::shared_fields::SharedFields;

/// Interval in which a waiting call looks for changes, such as that of the breaker.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Number of times that a call for several requests waits for another turn and is sent whole again.
pub(super) const MERGED_HOLDS: u32 = 1;

impl CallExecutor {
    /// Returns the pacer of a lane's calls, if calls are paced and the upstream is not known to be down.
    pub(super) fn pacer(&self, properties: &LaneProperties) -> Option<Arc<Pacer>> {
        let pacers = self.pacers.as_ref()?;
        // A call that fails at once needs no turn, and its requests get their fallback without a wait.
        (self.breaker.state() == BreakerState::Closed).then(|| pacers.of(properties.paced_as, &properties.priced_as))
    }

    /// Returns true if limits are learned from the service's answers.
    pub(super) fn learns_limits(&self) -> bool {
        self.pacers.as_ref().is_some_and(Pacers::learns)
    }

    /// Divides the configured limits among the replicas that reach a store. Never returns if there are pacers.
    pub(super) async fn share_pace(&self, store: Arc<dyn SharedFields>) {
        if let Some(pacers) = &self.pacers {
            PaceSharing::new(store).run(self.target.as_deref().unwrap_or_default(), pacers).await;
        }
    }

    /// Returns the limits of each model as they are now.
    pub(super) fn pace_reports(&self) -> Vec<PaceReport> {
        let reports = self.pacers.iter().flat_map(Pacers::reports);
        reports.map(|report| PaceReport { target: self.target.clone(), ..report }).collect()
    }

    /// Waits for the turn of a call, without its permit and without memory for its answer. `is_again` is true if the
    /// service has refused it.
    pub(super) async fn next_turn(
        &self,
        (properties, call): (&LaneProperties, &Call<'_>),
        permit: &mut CallPermit,
        (is_again, took): (bool, Duration),
    ) -> Result<Option<PaceTurn>, Failure> {
        // A worker of a lane waits for the first turn before it takes its inputs.
        if let Some(turn) = permit.take_turn() {
            return Ok(Some(turn));
        }
        let Some(pacer) = self.pacer(properties) else { return Ok(None) };
        let Claim { caller, priority, .. } = permit.claim();
        let wish = TurnWish { order: TurnOrder::of(priority, is_again), caller, tokens: call.tokens() };
        if let Some(turn) = pacer.try_turn(&wish) {
            return Ok(Some(turn));
        }
        let until = retry_deadline(&call.deadlines(), Class::Throttled, took);
        let is_up = || self.breaker.state() == BreakerState::Closed;
        let turn = wait_for_turn(pacer.turn(&wish, until), (priority, &is_up), &self.metrics);
        wait_aside((call, permit), turn, until).await
    }

    /// Waits before a call is repeated, without its permit and without memory for its answer. Returns its next turn, or
    /// `None` if the repetition would come too late.
    pub(super) async fn turn_after(
        &self,
        (properties, call): (&LaneProperties, &Call<'_>),
        permit: &mut CallPermit,
        (wait, deadline): (Duration, Instant),
    ) -> Option<Option<PaceTurn>> {
        // Calls that are ready may need both.
        call.reservation.give_up();
        if !permit.pause(wait, deadline).await {
            return None;
        }
        // The permit comes first, as in `Batcher::make`.
        call.reservation.take_again().await;
        self.next_turn((properties, call), permit, (false, Duration::ZERO)).await.ok()
    }

    /// Returns true if a call that failed waits for another turn, and counts it.
    pub(super) fn is_held(
        &self,
        (properties, call): (&LaneProperties, &Call<'_>),
        failure: &Failure,
        tries: &mut Tries,
    ) -> bool {
        // The load of a call for several requests may be the cause, so each request is sent separately in the end.
        if call.is_merged() && tries.held >= MERGED_HOLDS {
            return false;
        }
        if !call.waits || failure.class != Class::Throttled || !failure.may_be_retried() {
            return false;
        }
        let Some(pacer) = self.pacer(properties) else { return false };
        let first = *tries.first_held.get_or_insert_with(Instant::now);
        let is_held = pacer.holds(call.tokens(), (first, tries.held + 1));
        tries.held += u32::from(is_held);
        is_held
    }
}

/// Waits for a turn of a call without its permit and without memory for its answer, because calls that are ready may need
/// both.
pub(super) async fn wait_aside<T>(
    (call, permit): (&Call<'_>, &mut CallPermit),
    turn: impl Future<Output = Result<Option<T>, Duration>>,
    until: Instant,
) -> Result<Option<T>, Failure> {
    call.reservation.give_up();
    permit.leave();
    let turn = turn.await.map_err(Failure::not_in_time)?;
    if !permit.pause(Duration::ZERO, until).await {
        return Err(Failure::not_in_time(Duration::from_secs(1)));
    }
    // The permit comes first, as in `Batcher::make`.
    call.reservation.take_again().await;
    Ok(turn)
}

/// Waits for a turn, and counts the wait. Without a turn, the call goes on when something else is no longer as before,
/// such as the state of the breaker. Fails with the time that the turn would take.
pub(super) async fn wait_for_turn<T>(
    turn: impl Future<Output = Result<T, Duration>>,
    (priority, is_as_before): (Priority, &(dyn Fn() -> bool + Sync)),
    metrics: &Metrics,
) -> Result<Option<T>, Duration> {
    let begun = Instant::now();
    let _waiting = metrics.pace.waiting.of(priority).enter();
    // Boxed, because few calls wait, and each one would hold the memory of a wait.
    let mut turn = Box::pin(turn);
    let turn = loop {
        match timeout(LOOK_EVERY, turn.as_mut()).await {
            // A turn that depends on other calls takes as long again, as far as is known.
            Ok(turn) => break turn.map(Some).map_err(|wait| if wait.is_zero() { begun.elapsed() } else { wait }),
            Err(_) if !is_as_before() => break Ok(None),
            Err(_) => {}
        }
    };
    metrics.pace.waited(priority, begun.elapsed());
    if turn.is_err() {
        metrics.pace.refused.of(priority).inc();
    }
    turn
}
