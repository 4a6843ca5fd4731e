//! How much is let in at once: requests under way, and the bytes that they and their answers hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use http::{HeaderMap, HeaderName};

use super::callers::{Caller, Callers};
use crate::metrics::{Metrics, Rejection};
use crate::upstream::Charge;

/// The two bounds.
pub(super) struct Gate(Arc<Room>);

/// Counters and not semaphores: nothing ever waits here, and every hit passes twice.
struct Room {
    bounds: GateBounds,
    requests: AtomicUsize,
    bytes: AtomicUsize,
    callers: Callers,
}

/// What all requests under way may take together.
pub(super) struct GateBounds {
    /// How many there may be.
    pub(super) max_requests: usize,
    /// What they may hold, in bytes.
    pub(super) max_bytes: usize,
}

/// A place inside. Dropping it makes room.
pub(super) struct Admission {
    held: HeldBytes,
    /// Bytes that work of this request holds as well, and that may outlast it.
    shared: Option<Arc<HeldBytes>>,
}

/// Bytes that are given back when they are dropped.
struct HeldBytes {
    room: Arc<Room>,
    caller: Caller,
    bytes: usize,
    /// Whether they stand for a request under way, too.
    is_request: bool,
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
    /// An open gate, which shows what is inside with every scrape. Callers are told apart by `credential_headers`.
    pub(super) fn new(bounds: GateBounds, credential_headers: &[HeaderName], metrics: &Metrics) -> Self {
        let (requests, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let room = Arc::new(Room { bounds, requests, bytes, callers: Callers::new(credential_headers) });
        let shown = Arc::clone(&room);
        metrics.on_scrape(Box::new(move |metrics| {
            metrics.in_flight(shown.requests.load(Relaxed), shown.bytes.load(Relaxed));
        }));
        Self(room)
    }

    /// Lets a request with these headers in, if there is room for its caller.
    pub(super) fn admit(&self, headers: &HeaderMap) -> Result<Admission, Rejection> {
        let room = &self.0;
        let caller = room.callers.enter(headers);
        if !take(&room.requests, 1, room.callers.most_requests(caller, room.bounds.max_requests)) {
            room.callers.leave(caller);
            return Err(Rejection::Requests);
        }
        Ok(Admission { held: HeldBytes { room: Arc::clone(room), caller, bytes: 0, is_request: true }, shared: None })
    }
}

impl Admission {
    /// Whether a body that says to have `bytes` would fit now. Nothing is held for it: who only says so pays nothing.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        let HeldBytes { room, caller, .. } = &self.held;
        let most = room.callers.most_bytes(*caller, bytes, room.bounds.max_bytes);
        room.bytes.load(Relaxed).checked_add(bytes).is_some_and(|held| held <= most)
    }

    /// Makes room for `bytes` more, if there is any.
    pub(super) fn reserve(&mut self, bytes: usize) -> bool {
        self.held.grow(bytes)
    }

    /// What it holds, in bytes.
    pub(super) const fn held_bytes(&self) -> usize {
        self.held.bytes
    }

    /// Makes room for `bytes` more, or says whether there ever will be.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), NoRoom> {
        if self.held.bytes.saturating_add(bytes) > self.held.room.bounds.max_bytes {
            return Err(NoRoom::Never);
        }
        if self.reserve(bytes) { Ok(()) } else { Err(NoRoom::Now) }
    }

    /// Holds `bytes` in place of what it holds, if there is room for them. Where there is not, it holds nothing.
    pub(super) fn hold_instead(&mut self, bytes: usize) -> bool {
        self.shared = None;
        let fits = bytes <= self.held.bytes || self.reserve(bytes - self.held.bytes);
        self.held.shrink(if fits { bytes } else { 0 });
        fits
    }

    /// Shares what it holds with work that may outlast the request.
    pub(super) fn share(&mut self) -> Charge {
        let HeldBytes { room, caller, bytes, .. } = &mut self.held;
        let bytes = std::mem::take(bytes);
        let shared = Arc::new(HeldBytes { room: Arc::clone(room), caller: *caller, bytes, is_request: false });
        self.shared = Some(Arc::clone(&shared));
        shared as Charge
    }
}

impl HeldBytes {
    fn grow(&mut self, bytes: usize) -> bool {
        let room = &self.room;
        let fits = take(&room.bytes, bytes, room.callers.most_bytes(self.caller, bytes, room.bounds.max_bytes));
        if fits {
            self.bytes += bytes;
            room.callers.hold(self.caller, bytes);
        }
        fits
    }

    /// Gives back what is beyond `bytes`.
    fn shrink(&mut self, bytes: usize) {
        let more = self.bytes.saturating_sub(bytes);
        if more > 0 {
            self.room.bytes.fetch_sub(more, Relaxed);
            self.room.callers.give_back(self.caller, more);
            self.bytes -= more;
        }
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.shrink(0);
        if self.is_request {
            self.room.requests.fetch_sub(1, Relaxed);
            self.room.callers.leave(self.caller);
        }
    }
}

/// Adds `more` to what is held, unless that would be over `most`.
fn take(held: &AtomicUsize, more: usize, most: usize) -> bool {
    held.fetch_update(Relaxed, Relaxed, |held| held.checked_add(more).filter(|sum| *sum <= most)).is_ok()
}
