//! Admission limits: the number of requests in flight, and the bytes that they and their responses hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use http::{HeaderMap, HeaderName};

use super::callers::{CallerBucket, Callers};
use crate::key::Key;
use crate::observe::metrics::{Metrics, Rejection};
use crate::upstream::Charge;

/// Size up to which a reply may exceed the limit of bytes.
const OVERDRAFT_BYTES: usize = 256 * 1024;

/// Admission control with both limits.
pub(super) struct AdmissionLimit(Arc<RequestBudget>);

/// The counters are atomics and not semaphores: nothing ever waits here, and every hit updates them twice.
struct RequestBudget {
    bounds: AdmissionBounds,
    requests: AtomicUsize,
    bytes: AtomicUsize,
    callers: Callers,
}

/// Limits of all requests in flight together.
pub(super) struct AdmissionBounds {
    /// Maximum number of requests.
    pub(super) max_requests: usize,
    /// Maximum number of bytes.
    pub(super) max_bytes: usize,
}

/// Permit of one request. Dropping it frees its share.
pub(super) struct Admission {
    held: HeldBytes,
    /// Bytes shared with work of this request that may outlast it.
    shared: Option<Arc<HeldBytes>>,
}

/// Bytes that are released on drop.
struct HeldBytes {
    budget: Arc<RequestBudget>,
    caller: CallerBucket,
    bytes: usize,
    /// True if they also count as a request in flight.
    is_request: bool,
}

impl AdmissionLimit {
    /// Creates the admission control and exports its counters with every scrape. `credential_headers` identify callers.
    pub(super) fn new(bounds: AdmissionBounds, credential_headers: &[HeaderName], metrics: &Metrics) -> Self {
        let (requests, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let budget = Arc::new(RequestBudget { bounds, requests, bytes, callers: Callers::new(credential_headers) });
        let shown = Arc::clone(&budget);
        metrics.on_scrape(Box::new(move |metrics| {
            metrics.requests.in_flight(shown.requests.load(Relaxed), shown.bytes.load(Relaxed));
        }));
        Self(budget)
    }

    /// Admits a request with these headers if its caller is within the limits. `owner` is the known owner of its token.
    pub(super) fn admit(&self, headers: &HeaderMap, owner: Option<Key>) -> Result<Admission, Rejection> {
        let budget = &self.0;
        // The limit of a caller depends on its requests, so this request is counted before the check.
        let caller = budget.callers.enter(headers, owner);
        if !take(&budget.requests, 1, budget.callers.most_requests(caller, budget.bounds.max_requests)) {
            budget.callers.leave(caller);
            return Err(Rejection::Requests);
        }
        Ok(Admission {
            held: HeldBytes { budget: Arc::clone(budget), caller, bytes: 0, is_request: true },
            shared: None,
        })
    }
}

impl Admission {
    /// Returns true if a body with a declared size of `bytes` would fit now. Nothing is reserved, since a declaration
    /// alone must not consume the limit.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        let HeldBytes { budget, caller, .. } = &self.held;
        let most = budget.callers.most_bytes(*caller, bytes, budget.bounds.max_bytes);
        // A client may declare any size, so the sum may overflow.
        budget.bytes.load(Relaxed).checked_add(bytes).is_some_and(|held| held <= most)
    }

    /// Reserves `bytes` more. Returns false if they do not fit.
    pub(super) fn reserve(&mut self, bytes: usize) -> bool {
        self.held.grow(bytes)
    }

    /// Returns the reserved bytes.
    pub(super) const fn held_bytes(&self) -> usize {
        self.held.bytes
    }

    /// Reduces the reservation to `bytes`.
    pub(super) fn reduce_to(&mut self, bytes: usize) {
        self.held.shrink(bytes);
    }

    /// Replaces the reservation by that of a reply. A small reply is never refused, because its vectors are paid for;
    /// the limit is then exceeded for a moment. Returns false if a large reply does not fit.
    pub(super) fn hold_reply(&mut self, bytes: usize) -> bool {
        // A fetch that still runs has a handle of its own to the shared bytes.
        self.shared = None;
        if bytes <= self.held.bytes {
            self.held.shrink(bytes);
            return true;
        }
        let more = bytes - self.held.bytes;
        if self.reserve(more) {
            return true;
        }
        let is_small = bytes <= OVERDRAFT_BYTES;
        if is_small {
            self.held.overdraw(more);
        } else {
            // The error that replaces the reply is small and is not charged.
            self.held.shrink(0);
        }
        is_small
    }

    /// Shares the reservation with work that may outlast the request.
    pub(super) fn share(&mut self) -> Charge {
        // The bytes move to the shared handle, so its last owner releases them exactly once.
        let shared = self.part_of(self.held.bytes);
        self.shared = Some(Arc::clone(&shared));
        shared as Charge
    }

    /// Moves `bytes` of the reservation to work that may outlast the request.
    pub(super) fn lend(&mut self, bytes: usize) -> Charge {
        self.part_of(bytes) as Charge
    }

    fn part_of(&mut self, bytes: usize) -> Arc<HeldBytes> {
        let HeldBytes { budget, caller, bytes: held_bytes, .. } = &mut self.held;
        *held_bytes = held_bytes.checked_sub(bytes).expect("a part must not exceed its reservation");
        // Its caller stays active as long as it holds bytes, so the reserve for others remains.
        budget.callers.join(*caller);
        Arc::new(HeldBytes { budget: Arc::clone(budget), caller: *caller, bytes, is_request: false })
    }
}

impl HeldBytes {
    fn grow(&mut self, bytes: usize) -> bool {
        let budget = &self.budget;
        let fits = take(&budget.bytes, bytes, budget.callers.most_bytes(self.caller, bytes, budget.bounds.max_bytes));
        if fits {
            self.bytes += bytes;
            budget.callers.hold(self.caller, bytes);
        }
        fits
    }

    /// Reserves `bytes` more, whatever the limit is.
    fn overdraw(&mut self, bytes: usize) {
        self.budget.bytes.fetch_add(bytes, Relaxed);
        self.budget.callers.hold(self.caller, bytes);
        self.bytes += bytes;
    }

    /// Releases the bytes beyond `bytes`.
    fn shrink(&mut self, bytes: usize) {
        let more = self.bytes.saturating_sub(bytes);
        if more > 0 {
            self.budget.bytes.fetch_sub(more, Relaxed);
            self.budget.callers.give_back(self.caller, more);
            self.bytes -= more;
        }
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.shrink(0);
        if self.is_request {
            self.budget.requests.fetch_sub(1, Relaxed);
            self.budget.callers.leave(self.caller);
        } else {
            self.budget.callers.part(self.caller);
        }
    }
}

/// Adds `more` to `held` unless the sum exceeds `most`.
fn take(held: &AtomicUsize, more: usize, most: usize) -> bool {
    // `Relaxed` is enough: the counters guard no other memory.
    held.fetch_update(Relaxed, Relaxed, |held| held.checked_add(more).filter(|sum| *sum <= most)).is_ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::AUTHORIZATION;

    use super::*;

    const BOUNDS: AdmissionBounds = AdmissionBounds { max_requests: 2, max_bytes: 800 };

    fn limit() -> AdmissionLimit {
        AdmissionLimit::new(BOUNDS, &[AUTHORIZATION], &Metrics::new("test"))
    }

    fn of(caller: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(caller))])
    }

    fn held(limit: &AdmissionLimit) -> usize {
        limit.0.bytes.load(Relaxed)
    }

    #[test]
    fn the_reservation_of_a_reply_replaces_that_of_its_request() {
        let limit = limit();
        let mut admission = limit.admit(&of("a"), None).expect("there is room");
        assert!(admission.reserve(600));
        let work = admission.share();
        drop(work);
        assert_eq!(held(&limit), 600, "the request still holds what it shared");
        assert!(admission.hold_reply(100));
        assert_eq!(held(&limit), 100);
        assert!(admission.hold_reply(300) && admission.hold_reply(200));
        assert_eq!((held(&limit), admission.held_bytes()), (200, 200));
        drop(admission);
        assert_eq!((held(&limit), limit.0.requests.load(Relaxed)), (0, 0));
    }

    #[test]
    fn work_that_outlives_its_request_keeps_the_shared_reservation() {
        let limit = limit();
        let mut admission = limit.admit(&of("a"), None).expect("there is room");
        assert!(admission.reserve(600));
        let work = admission.share();
        drop(admission);
        assert_eq!(held(&limit), 600);
        drop(work);
        assert_eq!(held(&limit), 0);
    }

    #[test]
    fn a_small_reply_may_exceed_the_bound_and_a_large_one_may_not() {
        let limit = limit();
        let [mut one, mut other] =
            [limit.admit(&of("a"), None), limit.admit(&of("a"), None)].map(|it| it.expect("there is room"));
        assert!(one.reserve(600) && other.reserve(200) && !other.reserve(1));
        assert!(other.has_room(0) && !other.has_room(1));
        assert!(other.hold_reply(OVERDRAFT_BYTES));
        assert_eq!(held(&limit), 600 + OVERDRAFT_BYTES);
        assert!(!other.hold_reply(OVERDRAFT_BYTES + 1));
        assert_eq!(held(&limit), 600);
    }

    #[test]
    fn a_fetch_that_outlives_its_request_leaves_the_reserve_to_other_callers() {
        let limit = limit();
        let mut admission = limit.admit(&of("a"), None).expect("there is room");
        assert!(admission.reserve(800));
        let _work = admission.share();
        drop(admission);
        let mut other = limit.admit(&of("b"), None).expect("there is room");
        assert!(other.reserve(100) && !other.reserve(1));
    }

    #[test]
    fn refused_and_ended_requests_do_not_count_for_their_caller() {
        let limit = limit();
        let mut admissions: Vec<_> = (0..2).map(|_| limit.admit(&of("a"), None).expect("there is room")).collect();
        assert!(admissions[0].reserve(700));
        assert_eq!(limit.admit(&of("a"), None).err(), Some(Rejection::Requests));
        drop(admissions);
        let callers = &limit.0.callers;
        let other = callers.enter(&of("b"), None);
        assert_eq!(callers.most_bytes(other, 800, 800), 800, "it is alone");
        let again = callers.enter(&of("a"), None);
        assert_eq!(callers.most_bytes(again, 400, 800), 900, "it holds nothing");
    }
}
