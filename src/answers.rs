//! Rendered answers by the hash of the request: a view of the memory tier for bodies that come again and again.
//!
//! Never a second truth: an answer lives no longer than the shortest-lived of its records, and no purge, no change of
//! model and no newer vector in place of one of its own leaves it valid.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

use crate::bounded::{Bounded, Bounds, Entry, Mark};
use crate::generation::Generation;
use crate::key::{Key, SeenKeys};
use crate::metrics::Account;
use crate::spaces::{Identity, Lessons};
use crate::vouch::Voucher;

/// The share of the whole that one answer may take; a larger one would push out too many others. With the usual room it
/// takes in 256 vectors of 1,536 numbers, a common size of batches.
const LARGEST_SHARE: u64 = 4;
/// As many as leave room for the largest answer in each.
const PARTS: usize = 2;

/// A finished reply to one request body.
#[derive(Clone)]
pub struct StoredAnswer(Arc<Stored>);

struct Stored {
    parts: Parts,
    mark: Mark,
}

/// What a stored answer is made of.
pub struct Parts {
    /// The body.
    pub body: Bytes,
    /// How many inputs it answers.
    pub inputs: u64,
    /// Tokens the caller would have paid for.
    pub tokens: u64,
    /// Its headers, with room for those that differ from answer to answer.
    pub headers: HeaderMap,
    /// Until when all of its records are fresh.
    pub fresh_until_ms: u64,
    /// Whose vectors it holds.
    pub identity: Identity,
    /// What is known of their space.
    pub lessons: Arc<Lessons>,
    /// Where it is counted, so that serving it looks nothing up.
    pub account: Arc<Account>,
    /// The purges and imports it has seen.
    pub generation: Generation,
    /// The refreshes of its space that it has seen.
    pub refreshes: u64,
    /// What the upstream has to have accepted, where it has to.
    pub voucher: Option<Voucher>,
}

impl std::ops::Deref for StoredAnswer {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0.parts
    }
}

impl StoredAnswer {
    fn new(parts: Parts) -> Self {
        Self(Arc::new(Stored { parts, mark: Mark::default() }))
    }
}

/// What a kept map of seven headers takes: 8 places of 104 bytes, their index, and short values.
const HEADER_BYTES: usize = 1_024;

impl Entry for StoredAnswer {
    fn weight_bytes(&self) -> u64 {
        // The model's name may be long, and is not only in the body.
        let value_bytes: usize = self.headers.values().map(HeaderValue::len).sum();
        (size_of::<Stored>() + self.body.len() + HEADER_BYTES + value_bytes + self.identity.model.len()) as u64
    }

    fn mark(&self) -> Option<&Mark> {
        Some(&self.0.mark)
    }
}

/// Requests remembered as asked once.
const SEEN_PLACES: usize = 8_192;

/// The rendered answers at hand.
pub struct Answers {
    stored: Bounded<StoredAnswer>,
    /// Marks of requests that were asked before, newer ones overwriting older ones. A body is kept when its request
    /// comes for the second time: storing megabytes for requests that never come again costs more than it saves.
    seen: SeenKeys,
    served: AtomicU64,
    missed: AtomicU64,
}

impl Answers {
    /// None at first; none ever where `bounds` leaves no room.
    pub fn new(bounds: Bounds) -> Self {
        let (stored, seen) = (Bounded::new(bounds, PARTS), SeenKeys::new(SEEN_PLACES));
        Self { stored, seen, served: AtomicU64::new(0), missed: AtomicU64::new(0) }
    }

    /// The answer to the request with this hash, if it is still true.
    pub fn get(&self, request: &Key, now_ms: u64, generation: Generation) -> Option<StoredAnswer> {
        self.stored.get(request).filter(|answer| is_true(answer, now_ms, generation))
    }

    /// Counts a look-up, and whether what it found was served.
    pub fn count(&self, is_served: bool) {
        let counter = if is_served { &self.served } else { &self.missed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a request was asked, and says whether its answer is worth keeping: it is not too large, and the
    /// request was asked before.
    pub fn wants(&self, request: &Key, body_bytes: u64) -> bool {
        let seen = self.seen.note(request);
        seen && body_bytes <= self.stored.max_bytes() / LARGEST_SHARE
    }

    /// Keeps an answer.
    pub fn put(&self, request: Key, parts: Parts) {
        self.stored.insert(request, StoredAnswer::new(parts));
    }

    /// Forgets all answers.
    pub fn clear(&self) {
        self.stored.clear();
    }

    /// The map itself, for sizes and shedding.
    pub const fn stored(&self) -> &Bounded<StoredAnswer> {
        &self.stored
    }

    /// How many requests were answered from here, and how many were not.
    pub fn lookups(&self) -> (u64, u64) {
        (self.served.load(Ordering::Relaxed), self.missed.load(Ordering::Relaxed))
    }
}

fn is_true(answer: &Parts, now_ms: u64, generation: Generation) -> bool {
    now_ms < answer.fresh_until_ms
        && answer.generation == generation
        && answer.refreshes == answer.lessons.refreshes()
        && answer.lessons.accepts(&answer.identity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::Generations;
    use crate::key::KeyBuilder;
    use crate::metrics::Metrics;

    const BOUNDS: Bounds = Bounds { max_bytes: 1 << 16, max_entries: None };

    fn parts(purges: &Generations, lessons: &Arc<Lessons>, bytes: usize) -> Parts {
        Parts {
            body: Bytes::from(vec![b'x'; bytes]),
            inputs: 1,
            tokens: 1,
            headers: HeaderMap::new(),
            fresh_until_ms: 100,
            identity: lessons.learn("a", 2).0,
            lessons: Arc::clone(lessons),
            account: Metrics::new("0").accounts().of("a", "", "a"),
            generation: purges.current(),
            refreshes: lessons.refreshes(),
            voucher: None,
        }
    }

    fn setup() -> (Answers, Generations, Arc<Lessons>, Key) {
        let (answers, purges) = (Answers::new(BOUNDS), Generations::default());
        let (lessons, request) = (Arc::new(Lessons::default()), KeyBuilder::new(None).finish());
        answers.put(request, parts(&purges, &lessons, 10));
        assert!(answers.get(&request, 99, purges.current()).is_some());
        (answers, purges, lessons, request)
    }

    #[test]
    fn a_long_name_of_a_model_weighs_what_it_takes() {
        let (_, purges, lessons, _) = setup();
        let weight = |name: &str| {
            let mut parts = parts(&purges, &lessons, 10);
            parts.headers.insert("openai-model", name.parse().expect("it is a header value"));
            parts.identity.model = name.into();
            StoredAnswer::new(parts).weight_bytes()
        };
        assert_eq!(weight(&"m".repeat(5_000)) - weight("m"), 2 * 4_999);
    }

    #[test]
    fn an_answer_ends_with_its_records() {
        let (answers, purges, _, request) = setup();
        assert!(answers.get(&request, 100, purges.current()).is_none());
    }

    #[test]
    fn an_answer_ends_with_a_purge() {
        let (answers, purges, _, request) = setup();
        purges.next(None);
        assert!(answers.get(&request, 1, purges.current()).is_none());
    }

    #[test]
    fn an_answer_ends_with_a_refresh_of_its_space() {
        let (answers, purges, lessons, request) = setup();
        lessons.note_refresh();
        assert!(answers.get(&request, 1, purges.current()).is_none());
    }

    #[test]
    fn an_answer_ends_with_an_import_that_replaced_something() {
        let (answers, purges, _, request) = setup();
        purges.outdate();
        assert!(answers.get(&request, 1, purges.current()).is_none());
    }

    #[test]
    fn an_answer_ends_when_another_model_answers() {
        let (answers, purges, lessons, request) = setup();
        lessons.learn("b", 2);
        assert!(answers.get(&request, 1, purges.current()).is_none());
    }

    #[test]
    fn an_answer_that_would_push_out_many_is_not_wanted() {
        let (answers, _, _, request) = setup();
        for _ in 0..3 {
            assert!(!answers.wants(&request, BOUNDS.max_bytes / LARGEST_SHARE + 1));
        }
    }

    #[test]
    fn a_large_batch_as_floats_is_wanted_with_the_usual_room() {
        let answers = Answers::new(Bounds { max_bytes: 50 << 20, ..BOUNDS });
        let request = KeyBuilder::new(None).finish();
        // The longest text of a number and its comma is 17 bytes.
        let longest = 256 * (1_536 * 17 + 100);
        answers.wants(&request, longest);
        assert!(answers.wants(&request, longest));
    }

    #[test]
    fn an_answer_is_wanted_when_its_request_comes_again() {
        let (answers, _, _, request) = setup();
        assert!(!answers.wants(&request, 10));
        assert!(answers.wants(&request, 10));
        let other = request.extend(crate::key::Tag::Body, b"other");
        assert!(!answers.wants(&other, 10));
    }

    #[test]
    fn what_was_served_and_what_was_not_are_counted_apart() {
        let answers = Answers::new(BOUNDS);
        for is_served in [true, true, false] {
            answers.count(is_served);
        }
        assert_eq!(answers.lookups(), (2, 1));
    }
}
