//! How much is let in at once: requests under way, and the bytes that they and their answers hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::budget::{Budget, Charge};
use crate::metrics::{Metrics, Rejection};

/// The two bounds.
pub(super) struct Gate(Arc<Room>);

/// Counters and not semaphores: nobody ever waits here, and every hit passes twice.
struct Room {
    max_requests: usize,
    requests: AtomicUsize,
    bytes: Arc<Budget>,
}

/// A place inside. Dropping it makes room.
pub(super) struct Admission {
    room: Arc<Room>,
    bytes: usize,
    shared: Option<Arc<Charge>>,
}

/// Why there is no room for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// Others hold it.
    Now,
    /// It is more than there is.
    Never,
}

impl Gate {
    /// An open gate, which shows what is inside with every scrape.
    pub(super) fn new(max_requests: usize, max_bytes: usize, metrics: &Metrics) -> Self {
        let bytes = Arc::new(Budget::new(max_bytes));
        let room = Arc::new(Room { max_requests, requests: AtomicUsize::new(0), bytes });
        let shown = Arc::clone(&room);
        metrics.on_scrape(Box::new(move |metrics| {
            metrics.in_flight(shown.requests.load(Relaxed), shown.bytes.held_bytes());
        }));
        Self(room)
    }

    /// Lets a request in, if there is room.
    pub(super) fn admit(&self) -> Result<Admission, Rejection> {
        let room = &self.0;
        let may_enter = |count: usize| (count < room.max_requests).then_some(count + 1);
        if room.requests.fetch_update(Relaxed, Relaxed, may_enter).is_err() {
            return Err(Rejection::Requests);
        }
        Ok(Admission { room: Arc::clone(room), bytes: 0, shared: None })
    }

    /// Whether a body that says to have `bytes` would fit now. Nothing is held for it: who only says so pays nothing.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.0.bytes.held_bytes().checked_add(bytes).is_some_and(|held| held <= self.0.bytes.max_bytes())
    }
}

impl Admission {
    /// Makes room for `bytes` more, if there is any.
    pub(super) fn reserve(&mut self, bytes: usize) -> bool {
        let has_room = self.room.bytes.take(bytes);
        if has_room {
            self.bytes += bytes;
        }
        has_room
    }

    /// What it holds, in bytes.
    pub(super) const fn held_bytes(&self) -> usize {
        self.bytes
    }

    /// Makes room for `bytes` more, or says whether there ever will be.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), NoRoom> {
        if self.bytes.saturating_add(bytes) > self.room.bytes.max_bytes() {
            return Err(NoRoom::Never);
        }
        if self.reserve(bytes) { Ok(()) } else { Err(NoRoom::Now) }
    }

    /// Holds `bytes` in place of what it holds, if there is room for them. Where there is not, it holds nothing.
    pub(super) fn hold_instead(&mut self, bytes: usize) -> bool {
        self.shared = None;
        if bytes <= self.bytes {
            self.room.bytes.give_back(self.bytes - bytes);
            self.bytes = bytes;
            return true;
        }
        let fits = self.reserve(bytes - self.bytes);
        if !fits {
            self.room.bytes.give_back(std::mem::take(&mut self.bytes));
        }
        fits
    }

    /// Shares what it holds with work that may outlast the request.
    pub(super) fn share(&mut self) -> Arc<Charge> {
        let charge = Arc::new(Charge::of(Arc::clone(&self.room.bytes), std::mem::take(&mut self.bytes)));
        self.shared = Some(Arc::clone(&charge));
        charge
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.room.requests.fetch_sub(1, Relaxed);
        self.room.bytes.give_back(self.bytes);
    }
}
