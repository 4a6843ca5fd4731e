//! How much is let in at once: requests under way, and bytes of embeddings bodies held for them.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use crate::config::Limits;
use crate::metrics::{Entered, Metrics, Rejection};

/// What a body of unknown length is taken to be until it is read.
const UNKNOWN_BYTES: usize = 1 << 20;

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

    /// Makes room for a body of `length` bytes, or of as yet unknown length.
    pub(super) fn reserve(&self, admission: &mut Admission, length: Option<usize>) -> Result<(), Rejection> {
        let bytes = length.unwrap_or(UNKNOWN_BYTES).max(1);
        let permits = u32::try_from(bytes).map_err(|_| Rejection::InflightBytes)?;
        let reserved = Arc::clone(&self.bytes).try_acquire_many_owned(permits).map_err(|_| Rejection::InflightBytes)?;
        match &mut admission.body {
            Some(held) => held.merge(reserved),
            none => *none = Some(reserved),
        }
        match &mut admission.counted_bytes {
            Some(counted) => counted.grow(bytes),
            none => *none = Some(self.metrics.body_bytes_in_flight.enter_by(bytes)),
        }
        Ok(())
    }

    /// Makes room for what a body of unknown length turned out to hold beyond what was reserved for it.
    pub(super) fn reserve_rest(&self, admission: &mut Admission, length: usize) -> Result<(), Rejection> {
        match length.checked_sub(UNKNOWN_BYTES) {
            Some(more) if more > 0 => self.reserve(admission, Some(more)),
            _ => Ok(()),
        }
    }
}
