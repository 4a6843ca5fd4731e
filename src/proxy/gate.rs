//! How much is let in at once: requests under way, and bytes of embeddings bodies held for them.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use crate::config::Limits;
use crate::metrics::{Entered, Metrics, Rejection};

/// The two bounds.
pub(super) struct Gate {
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

/// A place inside. Dropping it makes room.
pub(super) struct Admission {
    _request: OwnedSemaphorePermit,
    body: Option<OwnedSemaphorePermit>,
    _counted: Entered,
    counted_bytes: Option<Entered>,
}

impl Gate {
    /// An open gate.
    pub(super) fn new(limits: &Limits, metrics: Arc<Metrics>) -> Self {
        let bytes = limits.max_inflight_bytes.min(Semaphore::MAX_PERMITS);
        Self {
            requests: Arc::new(Semaphore::new(limits.max_requests)),
            bytes: Arc::new(Semaphore::new(bytes)),
            metrics,
        }
    }

    /// Lets a request in, if there is room.
    pub(super) fn admit(&self) -> Result<Admission, Rejection> {
        match Arc::clone(&self.requests).try_acquire_owned() {
            Ok(request) => Ok(Admission {
                _request: request,
                body: None,
                _counted: self.metrics.requests_in_flight.enter(),
                counted_bytes: None,
            }),
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => Err(Rejection::Requests),
        }
    }

    /// Whether a body that says to have `bytes` would fit now. Nothing is held for it: who only says so pays nothing.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        bytes <= self.bytes.available_permits()
    }

    /// Makes room for `bytes` of a body that have arrived, if there is any.
    pub(super) fn reserve(&self, admission: &mut Admission, bytes: usize) -> bool {
        let Ok(permits) = u32::try_from(bytes) else {
            return false;
        };
        let Ok(reserved) = Arc::clone(&self.bytes).try_acquire_many_owned(permits) else {
            return false;
        };
        match &mut admission.body {
            Some(held) => held.merge(reserved),
            none => *none = Some(reserved),
        }
        match &mut admission.counted_bytes {
            Some(counted) => counted.grow(bytes),
            none => *none = Some(self.metrics.body_bytes_in_flight.enter_by(bytes)),
        }
        true
    }
}
