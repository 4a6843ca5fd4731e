//! A call to be made.

use bytes::Bytes;
use tokio::time::Instant;

use super::memory_budget::Reservation;
use super::piece::{Piece, load_of};
use super::sizing::LaneSize;
use crate::wire::{Encoding, Space};

/// A call to be made.
pub(super) struct Call<'a> {
    /// Its body.
    pub body: Bytes,
    /// Number of vectors that answer it.
    pub inputs: usize,
    /// The encoding that the body asks for.
    pub encoding: Encoding,
    /// True if the body repeats an input.
    pub has_repetitions: bool,
    /// The pieces that it is made for.
    pub batch: &'a [Piece],
    /// State of its lane.
    pub lane: &'a LaneSize,
    /// Memory reservation for its answer.
    pub reservation: &'a Reservation,
    /// Maximum number of attempts.
    pub attempts: u32,
    /// True if a call that the service refuses for its rate waits for another turn.
    pub waits: bool,
    /// True if it carries a part of a request that was cut.
    pub is_part: bool,
    /// Writes the body with the model's name of another place, and asks for this encoding if there is one.
    pub written: &'a (dyn Fn(&Space, Option<Encoding>) -> Bytes + Send + Sync),
}

impl Call<'_> {
    /// Returns the deadline of each request.
    pub(super) fn deadlines(&self) -> Vec<Instant> {
        self.batch.iter().map(|piece| piece.waiter.deadline).collect()
    }

    /// Returns its tokens by estimate.
    pub(super) fn tokens(&self) -> usize {
        load_of(self.batch).tokens
    }

    pub(super) const fn is_merged(&self) -> bool {
        self.batch.len() > 1
    }
}
