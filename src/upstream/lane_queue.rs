//! The queue of one lane: misses that wait for a call which they may share.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use super::LaneProperties;
use super::piece::{Piece, Submission};
use super::sizing::{LaneSize, Load};

/// Queue of one lane. It exists only while it has content.
pub(super) struct LaneQueue {
    pub(super) size: Arc<LaneSize>,
    pub(super) properties: Arc<LaneProperties>,
    pub(super) pieces: VecDeque<Piece>,
}

impl LaneQueue {
    /// Returns true if inputs of a submission wait here.
    pub(super) fn has(&self, ticket: Submission) -> bool {
        self.pieces.iter().any(|piece| piece.ticket == ticket)
    }

    /// Moves the first such piece before the others. Each worker serves the caller that brought it. So callers that
    /// share a lane keep the order in which they wait for permits.
    pub(super) fn bring_forward(&mut self, is_such: impl Fn(&Piece) -> bool) {
        let place = self.pieces.iter().position(is_such).filter(|place| *place > 0);
        if let Some(piece) = place.and_then(|place| self.pieces.remove(place)) {
            self.pieces.push_front(piece);
        }
    }
}

/// Returns the next piece whose deadline has not passed, and moves those before it to `expired`. Its caller may have
/// left. The piece is sent nevertheless, because a client that gave up usually repeats its request, and then finds the
/// vectors stored.
pub(super) fn next_in_time(queue: &mut LaneQueue, now: Instant, expired: &mut Vec<Piece>) -> Option<Piece> {
    while let Some(piece) = queue.pieces.pop_front() {
        if piece.waiter.deadline > now {
            return Some(piece);
        }
        expired.push(piece);
    }
    None
}

/// Builds a call from `first` and as many further whole requests as fit.
pub(super) fn merge(
    queue: &mut LaneQueue,
    first: Piece,
    (most, now, expired): (Load, Instant, &mut Vec<Piece>),
) -> Vec<Piece> {
    let mut load = first.load();
    let mut batch = vec![first];
    while let Some(next) = next_in_time(queue, now, expired) {
        let more = next.load();
        let sum = Load { inputs: load.inputs + more.inputs, tokens: load.tokens + more.tokens };
        if sum.inputs > most.inputs || sum.tokens > most.tokens {
            // The order is kept: a later piece that would fit does not overtake this one.
            queue.pieces.push_front(next);
            break;
        }
        load = sum;
        batch.push(next);
    }
    batch
}
