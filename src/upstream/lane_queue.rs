//! The queue of one lane: misses that wait for a call which they may share.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use super::LaneProperties;
use super::piece::{Piece, Submission};
use super::sizing::{CallBounds, LaneSize, Load};

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

    /// Returns the number of calls that would carry all pieces, and the tokens of each, if all pieces were as large as
    /// the first one. The size of calls for several requests doubles as long as they are answered quickly.
    pub(super) fn calls(&self, bounds: &CallBounds) -> Option<(usize, usize)> {
        let Load { inputs, tokens } = self.pieces.front()?.load();
        let most = (bounds.limit / inputs.max(1)).min(bounds.max_tokens / tokens.max(1)).max(1);
        let (pieces, mut together) = (self.pieces.len(), (bounds.merge_inputs / inputs.max(1)).clamp(1, most));
        let (mut calls, mut carried) = (0, 0);
        while carried < pieces && together < most {
            (calls, carried, together) = (calls + 1, carried + together, (2 * together).min(most));
        }
        calls += pieces.saturating_sub(carried).div_ceil(most);
        Some((calls, (pieces * tokens).div_ceil(calls.max(1))))
    }

    /// Takes the inputs of one call. A piece of this submission comes first, so that callers which share a lane keep the
    /// order in which they wait for turns and permits. It is cut to the size of a call, or merged with other pieces that
    /// fit. Pieces that have waited too long are moved to `expired`. Returns true if the rest of a cut piece is left.
    pub(super) fn take(
        &mut self,
        ticket: Submission,
        bounds: &CallBounds,
        (now, expired): (Instant, &mut Vec<Piece>),
    ) -> (Vec<Piece>, bool) {
        self.bring_forward(ticket);
        let Some(mut first) = next_in_time(self, now, expired) else { return (Vec::new(), false) };
        // A request that exceeds one call is cut. Any other is merged with the requests behind it.
        let fitting = first.fitting(bounds.cut(first.inputs().len()), bounds.max_tokens);
        if fitting < first.inputs().len() {
            // One other request precedes the rest: so small requests do not wait for all of a large one, and a steady
            // stream of small ones does not starve it.
            let place = self.pieces.len().min(1);
            self.pieces.insert(place, first.split_off(fitting));
            return (vec![first], true);
        }
        let most = Load { inputs: bounds.merge_inputs, tokens: bounds.max_tokens };
        (merge(self, first, (most, now, expired)), false)
    }

    /// Moves the first piece of a submission before the others.
    fn bring_forward(&mut self, ticket: Submission) {
        let place = self.pieces.iter().position(|piece| piece.ticket == ticket).filter(|place| *place > 0);
        if let Some(piece) = place.and_then(|place| self.pieces.remove(place)) {
            self.pieces.push_front(piece);
        }
    }
}

/// Returns the next piece whose deadline has not passed, and moves those before it to `expired`. Its caller may have
/// left. The piece is sent nevertheless, because a client that gave up usually repeats its request, and then finds the
/// vectors stored.
fn next_in_time(queue: &mut LaneQueue, now: Instant, expired: &mut Vec<Piece>) -> Option<Piece> {
    while let Some(piece) = queue.pieces.pop_front() {
        if piece.waiter.deadline > now {
            return Some(piece);
        }
        expired.push(piece);
    }
    None
}

/// Builds a call from `first` and as many further whole requests as fit.
fn merge(queue: &mut LaneQueue, first: Piece, (most, now, expired): (Load, Instant, &mut Vec<Piece>)) -> Vec<Piece> {
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
