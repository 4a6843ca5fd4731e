//! Workers of a lane. Each submission brings one. Interactive requests that wait for a bulk submission bring further ones,
//! which lend it their priority.

use std::sync::{Arc, Weak};

use tokio::time::Instant;

use super::LaneProperties;
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
    /// Set if the submission has another worker, and this one serves a request that waits for it.
    pub(super) hastens: Option<Hastening>,
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
