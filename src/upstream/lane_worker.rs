//! Workers of a lane. Each submission brings one. Interactive requests that wait for a bulk submission bring further ones,
//! which lend it their priority.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::LaneProperties;
use super::pacing::TurnOrder;
use super::permit::Claim;
use super::piece::Submission;
use crate::key::Key;

/// A worker of a lane, and the submission that it waits for.
#[derive(Clone)]
pub(super) struct LaneWorker {
    pub(super) lane: Key,
    pub(super) properties: Arc<LaneProperties>,
    pub(super) claim: Claim,
    pub(super) ticket: Submission,
    /// Tokens of the next call, by estimate.
    pub(super) tokens: usize,
    pub(super) deadline: Instant,
    /// Notified when inputs of the submission leave the lane.
    pub(super) left: Arc<Notify>,
    /// Set if the submission has another worker, and this one serves a request that waits for it.
    pub(super) hastens: Option<Hastening>,
}

/// Reason why a worker makes no call.
pub(super) enum NoTurn {
    /// Its turn would come only after this time.
    Late(Duration),
    /// Other workers have taken its inputs.
    Needless,
}

impl LaneWorker {
    /// Returns the order in which it waits for its turn.
    pub(super) const fn order(&self) -> TurnOrder {
        if self.hastens.is_some() { TurnOrder::Hastened } else { TurnOrder::of(self.claim.priority, false) }
    }
}

/// Keeps the calls for a submission interactive until it is dropped.
#[must_use = "the calls are interactive while it exists"]
pub struct HastenedSubmission {
    _waits: Arc<()>,
}

/// Tells a worker whether the request that it serves still waits.
#[derive(Clone)]
pub(super) struct Hastening(Weak<()>);

impl HastenedSubmission {
    pub(super) fn new() -> (Self, Hastening) {
        let waits = Arc::new(());
        let hastening = Hastening(Arc::downgrade(&waits));
        (Self { _waits: waits }, hastening)
    }
}

impl Hastening {
    /// Returns true while the request waits.
    pub(super) fn is_wanted(&self) -> bool {
        self.0.strong_count() > 0
    }
}
