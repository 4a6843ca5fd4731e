//! Turns of the workers of lanes: each waits until the rate limits admit its next call.

use std::time::Duration;

use super::Failure;
use super::batcher::{Batcher, lock};
use super::lane_worker::{Hastening, LaneWorker, NoTurn};
use super::paced::wait_for_turn;
use super::pacing::{PaceTurn, TurnWish};
use super::retry::TELL_AHEAD;

impl Batcher {
    /// Waits for a turn inside the rate limits.
    pub(super) async fn turn(&self, worker: &LaneWorker) -> Result<Option<PaceTurn>, NoTurn> {
        let Some(pacer) = self.router.pacer(&worker.properties) else { return Ok(None) };
        let LaneWorker { claim, tokens, deadline, .. } = *worker;
        let order = worker.order();
        let tokens = tokens.min(self.live.load().batch.max_tokens).min(pacer.largest_call(order));
        let wish = TurnWish { order, caller: claim.caller, tokens };
        if let Some(turn) = pacer.try_turn(&wish) {
            return Ok(Some(turn));
        }
        // The caller must have its answer before its own time is over.
        let until = deadline.checked_sub(TELL_AHEAD).unwrap_or(deadline);
        let is_wanted = || worker.hastens.as_ref().is_none_or(Hastening::is_wanted);
        let is_up = || self.router.pacer(&worker.properties).is_some() && is_wanted();
        tokio::select! {
            turn = wait_for_turn(pacer.turn(&wish, until), (claim.priority, &is_up), &self.metrics) => {
                turn.map_err(NoTurn::Late)
            }
            () = self.needless(worker) => Err(NoTurn::Needless),
        }
    }

    /// Waits until no inputs of a worker's submission are left in its lane.
    async fn needless(&self, worker: &LaneWorker) {
        loop {
            // Created before the look at the lane, so no change between the two is missed.
            let left = worker.left.notified();
            if !lock(&self.queues).get(&worker.lane).is_some_and(|queue| queue.has(worker.ticket)) {
                return;
            }
            left.await;
        }
    }

    /// Fails what is left of a worker's submission, because its turn would come too late.
    pub(super) fn refuse(&self, worker: &LaneWorker, wait: Duration) {
        let pacer = self.router.pacer(&worker.properties);
        let largest = self.router.largest_call(&worker.properties, worker.order());
        let mut queues = lock(&self.queues);
        let paced_as = worker.properties.paced_as;
        let lanes = queues.values().filter(|queue| queue.properties.paced_as == paced_as);
        let calls: Vec<_> = lanes.filter_map(|queue| queue.calls(&self.bounds(queue, largest))).collect();
        let Some(queue) = queues.get_mut(&worker.lane) else { return };
        let Some(place) = queue.pieces.iter().position(|piece| piece.ticket == worker.ticket) else { return };
        let refused = queue.pieces.remove(place);
        if queue.pieces.is_empty() {
            queues.remove(&worker.lane);
        }
        drop(queues);
        let tokens = refused.as_ref().map_or(0, |piece| piece.load().tokens);
        let wait = pacer.map_or(wait, |pacer| {
            let all = pacer.time_for_calls(sum(&calls)).map_or(wait, |time| time.min(wait));
            // A request that was cut needs all of its calls.
            let own = if tokens > largest { pacer.time_for_calls((1, tokens)) } else { None };
            own.map_or(all, |own| own.max(all))
        });
        self.fail_queued(refused.into_iter().collect(), Failure::not_in_time(wait));
    }
}

/// Returns the number of calls of several lanes, and the mean of their tokens.
fn sum(lanes: &[(usize, usize)]) -> (usize, usize) {
    let calls = lanes.iter().map(|(calls, _)| calls).sum::<usize>().max(1);
    (calls, lanes.iter().map(|(calls, tokens)| calls * tokens).sum::<usize>() / calls)
}
