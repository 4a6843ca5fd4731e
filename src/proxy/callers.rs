//! How much of the limits each caller holds, and how far it may go while other callers have requests under way.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use http::{HeaderMap, HeaderName};

/// Places that callers fall into by a hash. Two callers in one place count as one; so many take 256 KiB.
const PLACES: usize = 16_384;

/// One part in so many of a limit: callers that hold little may exceed it by this, and those that hold much leave it free.
const RESERVE: usize = 8;

/// The callers that have requests under way, by their credential. Counters alone, since every hit passes twice.
pub(super) struct Callers {
    credential_headers: Vec<HeaderName>,
    secret: RandomState,
    places: Box<[Held]>,
    active: AtomicUsize,
}

/// What one caller holds.
#[derive(Default)]
struct Held {
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

/// The place of one caller.
#[derive(Clone, Copy)]
pub(super) struct Caller(usize);

impl Callers {
    /// No callers yet. These headers together tell one from another.
    pub(super) fn new(credential_headers: &[HeaderName]) -> Self {
        let places = (0..PLACES).map(|_| Held::default()).collect();
        let (credential_headers, secret) = (credential_headers.to_vec(), RandomState::new());
        Self { credential_headers, secret, places, active: AtomicUsize::new(0) }
    }

    /// Counts a request of the caller that sent these headers. Each call needs one of [`Callers::leave`].
    pub(super) fn enter(&self, headers: &HeaderMap) -> Caller {
        let caller = self.of(headers);
        if self.places[caller.0].requests.fetch_add(1, Relaxed) == 0 {
            self.active.fetch_add(1, Relaxed);
        }
        caller
    }

    /// Ends the count of bytes.
    pub(super) fn give_back(&self, caller: Caller, bytes: usize) {
        self.places[caller.0].bytes.fetch_sub(bytes, Relaxed);
    }

    /// Ends the count of a request.
    pub(super) fn leave(&self, caller: Caller) {
        let held = &self.places[caller.0];
        if held.requests.fetch_sub(1, Relaxed) == 1 {
            self.active.fetch_sub(1, Relaxed);
        }
    }

    /// Counts bytes of a request that was counted.
    pub(super) fn hold(&self, caller: Caller, bytes: usize) {
        self.places[caller.0].bytes.fetch_add(bytes, Relaxed);
    }

    /// Most requests under way with a further one of this caller, which is counted already.
    pub(super) fn most_requests(&self, caller: Caller, limit: usize) -> usize {
        self.most(self.places[caller.0].requests.load(Relaxed), limit)
    }

    /// Most bytes under way with so many `more` of this caller.
    pub(super) fn most_bytes(&self, caller: Caller, more: usize, limit: usize) -> usize {
        self.most(self.places[caller.0].bytes.load(Relaxed).saturating_add(more), limit)
    }

    /// A caller that is alone may fill the limit. Beside others, one that holds more than an equal share leaves a reserve
    /// free, and the rest may go beyond the limit by as much: so they are let in while the first one still fills it.
    fn most(&self, held: usize, limit: usize) -> usize {
        let (active, reserve) = (self.active.load(Relaxed), (limit / RESERVE).max(1));
        if active <= 1 {
            limit
        } else if held <= (limit / active).max(1) {
            limit.saturating_add(reserve)
        } else {
            limit.saturating_sub(reserve)
        }
    }

    fn of(&self, headers: &HeaderMap) -> Caller {
        let mut hasher = self.secret.build_hasher();
        for (name, value) in headers {
            if self.credential_headers.contains(name) {
                name.as_str().hash(&mut hasher);
                value.as_bytes().hash(&mut hasher);
            }
        }
        Caller(usize::try_from(hasher.finish() % PLACES as u64).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::AUTHORIZATION;

    use super::*;

    /// Callers in places of their own, by name.
    fn callers(names: &[&str]) -> (Callers, Vec<HeaderMap>) {
        let headers = |name: &&str| {
            let value = HeaderValue::from_str(name).expect("a test's name is a header value");
            HeaderMap::from_iter([(AUTHORIZATION, value)])
        };
        let headers: Vec<HeaderMap> = names.iter().map(headers).collect();
        loop {
            let callers = Callers::new(&[AUTHORIZATION]);
            let mut places: Vec<usize> = headers.iter().map(|headers| callers.of(headers).0).collect();
            places.sort_unstable();
            places.dedup();
            if places.len() == names.len() {
                return (callers, headers);
            }
        }
    }

    #[test]
    fn a_caller_that_is_alone_may_fill_the_limit() {
        let (callers, headers) = callers(&["a"]);
        for _ in 0..100 {
            let caller = callers.enter(&headers[0]);
            assert_eq!(callers.most_requests(caller, 80), 80);
            assert_eq!(callers.most_bytes(caller, 1_000, 800), 800);
        }
    }

    #[test]
    fn beside_others_a_caller_of_much_leaves_a_reserve_and_one_of_little_may_use_another() {
        let (callers, headers) = callers(&["a", "b"]);
        let much: Vec<Caller> = (0..80).map(|_| callers.enter(&headers[0])).collect();
        callers.hold(much[0], 700);
        let little = callers.enter(&headers[1]);
        assert_eq!((callers.most_requests(much[0], 80), callers.most_requests(little, 80)), (70, 90));
        assert_eq!((callers.most_bytes(much[0], 1, 800), callers.most_bytes(little, 400, 800)), (700, 900));
        assert_eq!(callers.most_bytes(little, 401, 800), 700, "more than half is much");
        callers.leave(little);
        assert_eq!(callers.most_requests(much[0], 80), 80, "alone again");
        callers.give_back(much[0], 700);
        for caller in much {
            callers.leave(caller);
        }
        assert_eq!(callers.active.load(Relaxed), 0);
    }

    #[test]
    fn the_smallest_limit_has_a_reserve_too() {
        let (callers, headers) = callers(&["a", "b"]);
        let first = callers.enter(&headers[0]);
        let second = callers.enter(&headers[1]);
        assert_eq!((callers.most_requests(first, 1), callers.most_requests(second, 1)), (2, 2));
    }
}
