//! Share of the limits that each caller holds, and its maximum while other callers have requests in flight.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use http::{HeaderMap, HeaderName};

use crate::key::Key;

/// Number of hash buckets for callers. Callers in the same bucket count as one. All buckets together take 256 KiB.
const PLACES: usize = 16_384;

/// Divisor of a limit: callers with a small share may exceed the limit by this part, and those with a large share must
/// leave it free.
const RESERVE: usize = 8;

/// Callers with requests in flight, by credential. It consists of counters only, since every hit updates it twice.
pub(super) struct Callers {
    credential_headers: Vec<HeaderName>,
    // Clients cannot compute buckets, so they cannot choose that of another caller.
    secret: RandomState,
    places: Box<[CallerHolding]>,
    active: AtomicUsize,
}

/// Requests and bytes of one caller.
#[derive(Default)]
struct CallerHolding {
    /// Requests, and fetches that outlast them.
    work: AtomicUsize,
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

/// Bucket of one caller.
#[derive(Clone, Copy)]
pub(super) struct CallerBucket(usize);

impl Callers {
    /// Creates empty counters. These headers together identify a caller.
    pub(super) fn new(credential_headers: &[HeaderName]) -> Self {
        let places = (0..PLACES).map(|_| CallerHolding::default()).collect();
        let (credential_headers, secret) = (credential_headers.to_vec(), RandomState::new());
        Self { credential_headers, secret, places, active: AtomicUsize::new(0) }
    }

    /// Counts a request of the caller that sent these headers. A known owner of its token is the caller, whatever the
    /// headers are. Each call needs a matching [`Callers::leave`].
    pub(super) fn enter(&self, headers: &HeaderMap, owner: Option<Key>) -> CallerBucket {
        let caller = owner.map_or_else(|| self.of(headers), |owner| self.of_owner(&owner));
        self.places[caller.0].requests.fetch_add(1, Relaxed);
        self.join(caller);
        caller
    }

    /// Subtracts bytes.
    pub(super) fn give_back(&self, caller: CallerBucket, bytes: usize) {
        self.places[caller.0].bytes.fetch_sub(bytes, Relaxed);
    }

    /// Subtracts a request.
    pub(super) fn leave(&self, caller: CallerBucket) {
        self.places[caller.0].requests.fetch_sub(1, Relaxed);
        self.part(caller);
    }

    /// Counts work that keeps a caller active: a request, or a fetch that outlasts one.
    pub(super) fn join(&self, caller: CallerBucket) {
        if self.places[caller.0].work.fetch_add(1, Relaxed) == 0 {
            self.active.fetch_add(1, Relaxed);
        }
    }

    /// Subtracts such work.
    pub(super) fn part(&self, caller: CallerBucket) {
        if self.places[caller.0].work.fetch_sub(1, Relaxed) == 1 {
            self.active.fetch_sub(1, Relaxed);
        }
    }

    /// Adds bytes of a counted request.
    pub(super) fn hold(&self, caller: CallerBucket, bytes: usize) {
        self.places[caller.0].bytes.fetch_add(bytes, Relaxed);
    }

    /// Returns the maximum number of requests in flight for this caller's next request, which is already counted.
    pub(super) fn most_requests(&self, caller: CallerBucket, limit: usize) -> usize {
        self.most(self.places[caller.0].requests.load(Relaxed), limit)
    }

    /// Returns the maximum bytes in flight for `more` bytes of this caller.
    pub(super) fn most_bytes(&self, caller: CallerBucket, more: usize, limit: usize) -> usize {
        self.most(self.places[caller.0].bytes.load(Relaxed).saturating_add(more), limit)
    }

    /// Returns the limit that applies to a caller. A single caller may use the whole limit. With several callers, one
    /// that holds more than an equal share must leave a reserve free, and the others may exceed the limit by the same
    /// amount. They are therefore admitted even while one caller uses the whole limit.
    fn most(&self, held: usize, limit: usize) -> usize {
        // A limit below 8 still has a reserve of 1.
        let (active, reserve) = (self.active.load(Relaxed), (limit / RESERVE).max(1));
        if active <= 1 {
            limit
        } else if held <= (limit / active).max(1) {
            limit.saturating_add(reserve)
        } else {
            limit.saturating_sub(reserve)
        }
    }

    fn of(&self, headers: &HeaderMap) -> CallerBucket {
        let mut hasher = self.secret.build_hasher();
        for (name, value) in headers {
            if self.credential_headers.contains(name) {
                name.as_str().hash(&mut hasher);
                value.as_bytes().hash(&mut hasher);
            }
        }
        bucket(&hasher)
    }

    fn of_owner(&self, owner: &Key) -> CallerBucket {
        let mut hasher = self.secret.build_hasher();
        owner.hash(&mut hasher);
        bucket(&hasher)
    }
}

fn bucket(hasher: &impl Hasher) -> CallerBucket {
    CallerBucket(usize::try_from(hasher.finish() % PLACES as u64).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::AUTHORIZATION;

    use super::*;

    /// Returns callers with these names in separate buckets.
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
    fn a_single_caller_may_use_the_whole_limit() {
        let (callers, headers) = callers(&["a"]);
        for _ in 0..100 {
            let caller = callers.enter(&headers[0], None);
            assert_eq!(callers.most_requests(caller, 80), 80);
            assert_eq!(callers.most_bytes(caller, 1_000, 800), 800);
        }
    }

    #[test]
    fn heavy_callers_leave_a_reserve_that_light_callers_may_use() {
        let (callers, headers) = callers(&["a", "b"]);
        let much: Vec<CallerBucket> = (0..80).map(|_| callers.enter(&headers[0], None)).collect();
        callers.hold(much[0], 700);
        let little = callers.enter(&headers[1], None);
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
    fn the_smallest_limit_has_a_reserve() {
        let (callers, headers) = callers(&["a", "b"]);
        let first = callers.enter(&headers[0], None);
        let second = callers.enter(&headers[1], None);
        assert_eq!((callers.most_requests(first, 1), callers.most_requests(second, 1)), (2, 2));
    }

    #[test]
    fn only_credential_headers_identify_callers() {
        let (callers, headers) = callers(&["a"]);
        let mut other = headers[0].clone();
        other.insert("content-length", HeaderValue::from_static("7"));
        assert_eq!(callers.of(&headers[0]).0, callers.of(&other).0);
    }
}
