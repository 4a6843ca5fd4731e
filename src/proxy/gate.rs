//! How much is let in at once: requests under way, and bytes of embeddings bodies held for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::config::Limits;
use crate::metrics::{Metrics, Rejection};

/// The two bounds.
pub(super) struct Gate(Arc<Room>);

/// Counters and not semaphores: nobody ever waits here, and every hit passes twice.
struct Room {
    max_requests: usize,
    max_bytes: usize,
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

/// A place inside. Dropping it makes room.
pub(super) struct Admission {
    room: Arc<Room>,
    body_bytes: usize,
}

impl Gate {
    /// An open gate, which shows what is inside with every scrape.
    pub(super) fn new(limits: &Limits, metrics: &Metrics) -> Self {
        let room = Arc::new(Room {
            max_requests: limits.max_requests,
            max_bytes: limits.max_inflight_bytes,
            requests: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        });
        let shown = Arc::clone(&room);
        metrics.on_scrape(Box::new(move |metrics| {
            metrics.in_flight(shown.requests.load(Relaxed), shown.bytes.load(Relaxed));
        }));
        Self(room)
    }

    /// Lets a request in, if there is room.
    pub(super) fn admit(&self) -> Result<Admission, Rejection> {
        let room = &self.0;
        if !take(&room.requests, 1, room.max_requests) {
            return Err(Rejection::Requests);
        }
        Ok(Admission { room: Arc::clone(room), body_bytes: 0 })
    }

    /// Whether a body that says to have `bytes` would fit now. Nothing is held for it: who only says so pays nothing.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.0.bytes.load(Relaxed).checked_add(bytes).is_some_and(|held| held <= self.0.max_bytes)
    }
}

impl Admission {
    /// Makes room for `bytes` of a body that have arrived, if there is any.
    pub(super) fn reserve(&mut self, bytes: usize) -> bool {
        let has_room = take(&self.room.bytes, bytes, self.room.max_bytes);
        if has_room {
            self.body_bytes += bytes;
        }
        has_room
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let room = &self.room;
        room.requests.fetch_sub(1, Relaxed);
        if self.body_bytes > 0 {
            room.bytes.fetch_sub(self.body_bytes, Relaxed);
        }
    }
}

/// Adds `more` to what is held, unless that would be over `most`.
fn take(held: &AtomicUsize, more: usize, most: usize) -> bool {
    held.fetch_update(Relaxed, Relaxed, |held| held.checked_add(more).filter(|sum| *sum <= most)).is_ok()
}
