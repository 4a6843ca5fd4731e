//! Cache of complete replies, keyed by the hash of the request. It is a view of the memory tier for bodies that repeat.
//!
//! The cache never serves anything that the tiers would not. A reply expires with the shortest-lived of its records. A
//! purge, a change of model, or a newer vector for one of its records also invalidates it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

use crate::cache::bounded::{Bounded, Entry, MapBounds, Mark};
use crate::cache::map_stats::map_stats;
use crate::cache::purges::Generation;
use crate::key::{Key, SeenKeys};
use crate::learned::{AcceptedCredential, ModelIdentity, SpaceState};
use crate::observe::metrics::{TierStats, UsageAccount};

/// Denominator of the largest fraction of the cache that one reply may take. A larger reply would evict too
/// many others. At the usual size of the cache, a reply with 256 vectors of 1,536 numbers fits, which is a
/// common batch size.
const LARGEST_SHARE: u64 = 4;
/// The largest number of parts that leaves space for the largest reply in each.
const PARTS: usize = 2;

/// A finished reply to one request body.
#[derive(Clone)]
pub struct CachedReply(Arc<StoredReply>);

struct StoredReply {
    parts: ReplyParts,
    mark: Mark,
}

/// Contents of a cached reply.
pub struct ReplyParts {
    /// The body.
    pub body: Bytes,
    /// Number of inputs that it answers.
    pub inputs: u64,
    /// Tokens the caller would have paid for.
    pub tokens: u64,
    /// Its headers, with capacity for the headers that differ from reply to reply.
    pub headers: HeaderMap,
    /// Account that is charged for it, so a hit needs no look-up.
    pub account: Arc<UsageAccount>,
    /// Conditions under which it may be served.
    pub validity: Validity,
}

/// Conditions under which a finished body may be served.
pub struct Validity {
    /// Time at which the first of its records stops being fresh.
    pub fresh_until_ms: u64,
    /// Model that made its vectors.
    pub identity: ModelIdentity,
    /// State of their space.
    pub space_state: Arc<SpaceState>,
    /// Count of purges and imports when its request began.
    pub generation: Generation,
    /// Count of replaced records in its space when its request began.
    pub replacements: u64,
    /// Credential that the upstream must have accepted, if the configuration demands it.
    pub accepted_credential: Option<AcceptedCredential>,
}

impl Validity {
    fn holds(&self, now_ms: u64, generation: Generation) -> bool {
        // The last check locks the state of the space, so the cheaper ones come first.
        now_ms < self.fresh_until_ms
            && self.generation == generation
            && self.replacements == self.space_state.replacements()
            && self.space_state.accepts(&self.identity)
    }
}

impl std::ops::Deref for CachedReply {
    type Target = ReplyParts;

    fn deref(&self) -> &ReplyParts {
        &self.0.parts
    }
}

impl CachedReply {
    fn new(parts: ReplyParts) -> Self {
        Self(Arc::new(StoredReply { parts, mark: Mark::default() }))
    }
}

/// Memory of a stored map of seven headers: 8 slots of 104 bytes, the index, and short values.
const HEADER_BYTES: usize = 1_024;

impl Entry for CachedReply {
    fn weight_bytes(&self) -> u64 {
        // The model's name may be long, and the identity holds a copy of it outside the body.
        let value_bytes: usize = self.headers.values().map(HeaderValue::len).sum();
        (size_of::<StoredReply>() + self.body.len() + HEADER_BYTES + value_bytes + self.validity.identity.model.len())
            as u64
    }

    fn mark(&self) -> Option<&Mark> {
        Some(&self.0.mark)
    }
}

/// Number of requests that are remembered as seen once.
const SEEN_PLACES: usize = 8_192;

/// Cache of complete replies.
pub struct ReplyCache {
    stored: Bounded<CachedReply>,
    /// Marks of requests seen before; newer marks overwrite older ones. A reply is stored when its request comes for
    /// the second time, because storing megabytes for requests that never repeat costs more than it saves.
    seen: SeenKeys,
    served: AtomicU64,
    missed: AtomicU64,
}

impl ReplyCache {
    /// Returns an empty cache. It stays empty if `bounds` leaves no space.
    pub fn new(bounds: MapBounds) -> Self {
        let (stored, seen) = (Bounded::new(bounds, PARTS), SeenKeys::new(SEEN_PLACES));
        Self { stored, seen, served: AtomicU64::new(0), missed: AtomicU64::new(0) }
    }

    /// Returns the reply to the request with this hash, if it is still valid.
    pub fn get(&self, request: &Key, now_ms: u64, generation: Generation) -> Option<CachedReply> {
        // An invalid reply stays in the map: the next reply to the same request replaces it.
        self.stored.get(request).filter(|answer| answer.validity.holds(now_ms, generation))
    }

    /// Counts a look-up, as a hit if the reply was served.
    pub fn count(&self, is_served: bool) {
        let counter = if is_served { &self.served } else { &self.missed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a request was seen. Returns true if its reply is worth storing: the reply is not too large, and the
    /// request was seen before.
    pub fn wants(&self, request: &Key, body_bytes: u64) -> bool {
        let seen = self.seen.note(request);
        seen && body_bytes <= self.stored.max_bytes() / LARGEST_SHARE
    }

    /// Stores a reply.
    pub fn put(&self, request: Key, parts: ReplyParts) {
        self.stored.insert(request, CachedReply::new(parts));
    }

    /// Removes all replies.
    pub fn clear(&self) {
        self.stored.clear();
    }

    /// Returns the underlying map, for sizes and eviction.
    pub const fn stored(&self) -> &Bounded<CachedReply> {
        &self.stored
    }

    /// Returns the statistics of the cache. A hit is a request that was answered from here.
    pub fn stats(&self) -> TierStats {
        map_stats(&self.stored, (self.served.load(Ordering::Relaxed), self.missed.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::purges::Generations;
    use crate::key::KeyBuilder;
    use crate::observe::metrics::Metrics;

    const BOUNDS: MapBounds = MapBounds { max_bytes: 1 << 16, max_entries: None };

    fn parts(purges: &Generations, space_state: &Arc<SpaceState>, bytes: usize) -> ReplyParts {
        ReplyParts {
            body: Bytes::from(vec![b'x'; bytes]),
            inputs: 1,
            tokens: 1,
            headers: HeaderMap::new(),
            account: Metrics::new("0").accounts().of("a", "", "a"),
            validity: Validity {
                fresh_until_ms: 100,
                identity: space_state.learn("a", 2, 0).0,
                space_state: Arc::clone(space_state),
                generation: purges.current(),
                replacements: space_state.replacements(),
                accepted_credential: None,
            },
        }
    }

    fn setup() -> (ReplyCache, Generations, Arc<SpaceState>, Key) {
        let (reply_cache, purges) = (ReplyCache::new(BOUNDS), Generations::default());
        let (space_state, request) = (Arc::new(SpaceState::default()), KeyBuilder::new(None).finish());
        reply_cache.put(request, parts(&purges, &space_state, 10));
        assert!(reply_cache.get(&request, 99, purges.current()).is_some());
        (reply_cache, purges, space_state, request)
    }

    #[test]
    fn weight_includes_the_length_of_model_names() {
        let (_, purges, space_state, _) = setup();
        let weight = |name: &str| {
            let mut parts = parts(&purges, &space_state, 10);
            parts.headers.insert("openai-model", name.parse().expect("it is a header value"));
            parts.validity.identity.model = name.into();
            CachedReply::new(parts).weight_bytes()
        };
        assert_eq!(weight(&"m".repeat(5_000)) - weight("m"), 2 * 4_999);
    }

    #[test]
    fn a_cached_reply_expires_with_its_records() {
        let (reply_cache, purges, _, request) = setup();
        assert!(reply_cache.get(&request, 100, purges.current()).is_none());
    }

    #[test]
    fn a_purge_invalidates_cached_replies() {
        let (reply_cache, purges, _, request) = setup();
        purges.next(&crate::cache::purges::PurgeSubject::Everything);
        assert!(reply_cache.get(&request, 1, purges.current()).is_none());
    }

    #[test]
    fn a_refresh_invalidates_the_cached_replies_of_its_space() {
        let (reply_cache, purges, space_state, request) = setup();
        space_state.note_replacement();
        assert!(reply_cache.get(&request, 1, purges.current()).is_none());
    }

    #[test]
    fn an_import_that_replaces_records_invalidates_cached_replies() {
        let (reply_cache, purges, _, request) = setup();
        purges.outdate();
        assert!(reply_cache.get(&request, 1, purges.current()).is_none());
    }

    #[test]
    fn a_model_change_invalidates_cached_replies() {
        let (reply_cache, purges, space_state, request) = setup();
        space_state.learn("b", 2, 0);
        assert!(reply_cache.get(&request, 1, purges.current()).is_none());
    }

    #[test]
    fn replies_larger_than_their_share_are_not_cached() {
        let (reply_cache, _, _, request) = setup();
        for _ in 0..3 {
            assert!(!reply_cache.wants(&request, BOUNDS.max_bytes / LARGEST_SHARE + 1));
        }
    }

    #[test]
    fn a_large_batch_of_floats_fits_the_default_reply_cache() {
        let reply_cache = ReplyCache::new(MapBounds { max_bytes: 50 << 20, ..BOUNDS });
        let request = KeyBuilder::new(None).finish();
        // The longest text of a number and its comma is 17 bytes.
        let longest = 256 * (1_536 * 17 + 100);
        reply_cache.wants(&request, longest);
        assert!(reply_cache.wants(&request, longest));
    }

    #[test]
    fn a_reply_is_cached_when_its_request_is_repeated() {
        let (reply_cache, _, _, request) = setup();
        assert!(!reply_cache.wants(&request, 10));
        assert!(reply_cache.wants(&request, 10));
        let other = request.extend(crate::key::Tag::Body, b"other");
        assert!(!reply_cache.wants(&other, 10));
    }

    #[test]
    fn hits_and_misses_of_the_reply_cache_are_counted_separately() {
        let reply_cache = ReplyCache::new(BOUNDS);
        for is_served in [true, true, false] {
            reply_cache.count(is_served);
        }
        assert_eq!((reply_cache.stats().hits, reply_cache.stats().misses), (2, 1));
    }
}
