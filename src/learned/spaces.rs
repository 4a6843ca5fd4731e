//! State of each space as learned from the newest answers: the model that answers, the dimension of its vectors, and
//! the encodings that cannot be read.
//!
//! The map of spaces is not an [`ExpiringMap`](crate::process::expiring::ExpiringMap). A space does not expire, the
//! choice of the one to forget depends on its content, and a forgotten state is marked before its successor exists. A
//! library cache chooses by use, and removes later.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::identity::{ModelChange, ModelIdentity, TokenCounting};
use crate::key::{Key, KeyMap};
use crate::wire::Encoding;

/// Maximum number of spaces. Beyond it one is forgotten, which costs learning it again.
const MAX_SPACES: usize = 10_000;

/// Number of spaces that are examined to choose one to forget.
const CANDIDATES: usize = 256;

/// An encoding that proved unreadable is not requested again for this long.
const UNREADABLE_FOR_MS: u64 = 60_000;

/// If the lower tiers do not know the model of a space, they are not queried for it again for this long.
const IDENTITY_LOOKUP_EVERY_MS: u64 = 60_000;

/// Number of consecutive unreadable answers that prove an encoding unreadable. A single one may be an accident.
const UNREADABLE_PROOF: u32 = 3;

/// The same number if earlier answers could be read.
const UNREADABLE_PROOF_AFTER_READ: u32 = 20;
/// Number of consecutive answers with one dimension that was not asked for. From then on, the upstream counts as
/// ignoring `dimensions`.
const DIMENSION_PROOF: u32 = 3;

/// All spaces in use. A space is identified by the key of its context: scope, upstream, model and every field that
/// shapes vectors.
#[derive(Default)]
pub struct Spaces {
    known: RwLock<KeyMap<Arc<SpaceState>>>,
}

/// State of one space.
#[derive(Default)]
pub struct SpaceState {
    learned: Mutex<Facts>,
    /// True if vectors of two models may be stored.
    is_mixed: AtomicBool,
    /// Count of stored vectors that replaced another vector that was still valid.
    replacements: AtomicU64,
    /// True if answers have an `id`, which strict clients then also require of hits. Unknown before the first answer in
    /// this process.
    has_ids: Mutex<Option<bool>>,
    /// True while vecho checks whether the vectors of the space change.
    is_watched: AtomicBool,
}

#[derive(Default)]
struct Facts {
    identity: Option<ModelIdentity>,
    /// True if an identity other than the present one has been seen.
    has_changed: bool,
    /// Time at which all lower tiers were last queried for the newest identity.
    identity_lookup_at_ms: Option<u64>,
    /// Identity of the record that the lower tiers hold as the newest of the space.
    noted: Option<ModelIdentity>,
    // Set when the map drops this state. Replies that still hold it must not be served.
    is_forgotten: bool,
    tokenizer: TokenCounting,
    unreadable: HashMap<Encoding, UnreadableStreak>,
    dimension: Dimension,
}

/// Dimension of answers if the upstream ignores the requested one.
#[derive(Clone, Copy, Default)]
struct Dimension {
    proven: Option<usize>,
    /// Another dimension, and the number of consecutive answers that had it.
    candidate: Option<(usize, u32)>,
}

#[derive(Clone, Copy, Default)]
struct UnreadableStreak {
    /// True if answers could be read before. Then a few texts without a usable vector prove nothing about the others.
    was_read: bool,
    in_row: u32,
    until_ms: u64,
}

impl Facts {
    fn revision(&self) -> u64 {
        self.identity.as_ref().map_or(0, |identity| identity.revision)
    }
}

impl UnreadableStreak {
    const fn is_proof(self, now_ms: u64) -> bool {
        let enough = if self.was_read { UNREADABLE_PROOF_AFTER_READ } else { UNREADABLE_PROOF };
        self.in_row >= enough && now_ms < self.until_ms
    }
}

impl Spaces {
    /// Returns the state of a space, empty at first.
    pub fn of(&self, space: Key) -> Arc<SpaceState> {
        if let Some(known) = self.known.read().unwrap_or_else(PoisonError::into_inner).get(&space) {
            return Arc::clone(known);
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_SPACES
            && let Some(one) = one_to_forget(&known)
        {
            // A cached reply may still hold this state, and would never learn of a later change of model.
            if let Some(forgotten) = known.remove(&one) {
                forgotten.lock().is_forgotten = true;
            }
        }
        // Another request may have created the state between the two locks.
        Arc::clone(known.entry(space).or_default())
    }

    /// Returns the state of a space if there is any. Creates no entry.
    pub fn find(&self, space: &Key) -> Option<Arc<SpaceState>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(space).cloned()
    }
}

/// Selects an arbitrary space, preferably one without stored vectors of two models: without its state, both
/// would be served.
fn one_to_forget(known: &KeyMap<Arc<SpaceState>>) -> Option<Key> {
    let is_mixed = |space_state: &SpaceState| space_state.is_mixed.load(Ordering::Relaxed);
    // The bound limits the time under the write lock.
    let plain = known.iter().take(CANDIDATES).find(|(_, space_state)| !is_mixed(space_state));
    plain.map(|(key, _)| key).or_else(|| known.keys().next()).copied()
}

impl SpaceState {
    /// Returns the current identity of this space, if known.
    pub fn identity(&self) -> Option<ModelIdentity> {
        self.lock().identity.clone()
    }

    /// Returns the revision of the model behind this space: see [`ModelIdentity::revision`].
    pub fn revision(&self) -> u64 {
        self.lock().revision()
    }

    /// Returns true if a vector of `identity` may be served, which ends when a newer answer names another model. A
    /// later revision of the known model is taken over: another replica has found that the vectors changed.
    pub fn accepts(&self, identity: &ModelIdentity) -> bool {
        let mut learned = self.lock();
        if learned.is_forgotten {
            return false;
        }
        match &learned.identity {
            None => true,
            Some(current) if current == identity => true,
            Some(current) if current.is_named_like(identity) && current.revision < identity.revision => {
                learned.identity = Some(identity.clone());
                learned.has_changed = true;
                self.is_mixed.store(true, Ordering::Relaxed);
                true
            }
            Some(_) => false,
        }
    }

    /// Learns the identity of an answer to a call that was sent at `revision`. Returns the identity to store, which
    /// shares its name with earlier ones.
    pub fn learn(&self, model: &str, dimension: usize, revision: u64) -> (ModelIdentity, ModelChange) {
        let mut learned = self.lock();
        let named = |revision| ModelIdentity { model: Arc::from(model), dimension, revision };
        let lesson = match &learned.identity {
            // The vectors changed while this call was under way, so its answer may be of either kind.
            Some(current) if revision < current.revision => return (named(revision), ModelChange::Known),
            Some(current) if &*current.model == model && current.dimension == dimension => {
                return (current.clone(), ModelChange::Known);
            }
            Some(_) => ModelChange::Drift,
            None => ModelChange::First,
        };
        let identity = named(learned.revision().max(revision));
        if lesson == ModelChange::Drift {
            learned.has_changed = true;
            self.is_mixed.store(true, Ordering::Relaxed);
        }
        learned.identity = Some(identity.clone());
        (identity, lesson)
    }

    /// Begins a new revision of the model: all vectors of earlier ones count as those of an older model. Does nothing
    /// if a later one has begun.
    pub fn renew(&self, identity: &ModelIdentity) {
        let mut learned = self.lock();
        if learned.revision() < identity.revision {
            learned.identity = Some(identity.clone());
            learned.has_changed = true;
            self.is_mixed.store(true, Ordering::Relaxed);
        }
    }

    /// Returns true if the model is unknown and the lower tiers have not been queried within the last minute. A tier
    /// with the record may have been slow, and another process may have seen a newer model since.
    pub fn needs_identity_lookup(&self, now_ms: u64) -> bool {
        let learned = self.lock();
        let was_recent = |at: u64| now_ms.saturating_sub(at) < IDENTITY_LOOKUP_EVERY_MS;
        learned.identity.is_none() && !learned.identity_lookup_at_ms.is_some_and(was_recent)
    }

    /// Notes that all lower tiers were queried.
    pub fn note_identity_lookup(&self, now_ms: u64) {
        self.lock().identity_lookup_at_ms = Some(now_ms);
    }

    /// Adopts the newest identity that another process stored, unless this process already knows one.
    pub fn recall(&self, identity: &ModelIdentity) {
        let mut learned = self.lock();
        if learned.identity.is_none() {
            learned.identity = Some(identity.clone());
            // The identity came from a lower tier, so it is not written there again.
            learned.noted = Some(identity.clone());
            // A different identity seen later must be noted in the lower tiers.
            learned.has_changed = true;
        }
    }

    /// Notes that the lower tiers may hold records of an older identity.
    pub fn expect_older_records(&self) {
        self.lock().has_changed = true;
    }

    /// Notes that a record of an older identity was found.
    pub fn note_older_record(&self) {
        self.expect_older_records();
        self.is_mixed.store(true, Ordering::Relaxed);
    }

    /// Notes that a stored vector replaced another one that was still valid.
    pub fn note_replacement(&self) {
        self.replacements.fetch_add(1, Ordering::SeqCst);
    }

    /// Notes whether an answer of this space has an `id`. One answer with an `id` is enough.
    pub fn note_id(&self, has_id: bool) {
        let mut has_ids = self.has_ids.lock().unwrap_or_else(PoisonError::into_inner);
        // Ids are assumed before the first answer, so only a change from `false` is news.
        let is_news = has_id && *has_ids == Some(false);
        *has_ids = Some(has_id || *has_ids == Some(true));
        if is_news {
            // Cached replies without an id are out of date now.
            self.note_replacement();
        }
    }

    /// Returns true if answers of this space have an `id`, as far as this process has seen any.
    pub fn may_have_ids(&self) -> bool {
        self.has_ids.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(true)
    }

    /// Returns the count of replaced vectors. A reply assembled from stored vectors is valid while this
    /// count is unchanged.
    pub fn replacements(&self) -> u64 {
        self.replacements.load(Ordering::SeqCst)
    }

    /// Returns true if the lower tiers must still be told that `identity` replaced another one. Marks it as told.
    pub fn must_be_noted(&self, identity: &ModelIdentity) -> bool {
        let mut learned = self.lock();
        let is_news = learned.has_changed && learned.noted.as_ref() != Some(identity);
        // Check and mark share one lock, so one request alone writes the record.
        if is_news {
            learned.noted = Some(identity.clone());
        }
        is_news
    }

    /// Marks the space as watched for changes of its vectors. Returns true if it was not.
    pub fn begin_watch(&self) -> bool {
        // The plain read keeps requests to a watched space free of writes to shared memory.
        !self.is_watched.load(Ordering::Relaxed) && !self.is_watched.swap(true, Ordering::Relaxed)
    }

    /// Marks the space as not watched, so its next request begins the watch again.
    pub fn end_watch(&self) {
        self.is_watched.store(false, Ordering::Relaxed);
    }

    /// Returns how the upstream counts tokens, if known.
    pub fn tokenizer(&self) -> TokenCounting {
        self.lock().tokenizer
    }

    /// Notes how the upstream counts tokens.
    pub fn set_tokenizer(&self, tokenizer: TokenCounting) {
        self.lock().tokenizer = tokenizer;
    }

    /// Notes that an answer in `encoding` could be read.
    pub fn mark_readable(&self, encoding: Encoding) {
        let mut learned = self.lock();
        learned.unreadable.insert(encoding, UnreadableStreak { was_read: true, ..UnreadableStreak::default() });
        // An accepted answer interrupts a run of answers with another dimension.
        learned.dimension.candidate = None;
    }

    /// Returns the known dimension of vectors of this space. That is the unexpected dimension that several consecutive
    /// answers had, else the dimension of the newest vector, even if another process stored it.
    pub fn known_dimension(&self) -> Option<usize> {
        let learned = self.lock();
        let newest = || learned.identity.as_ref().map(|identity| identity.dimension);
        learned.dimension.proven.or_else(newest)
    }

    /// Notes an answer with vectors that all had `dimension`, which was not expected. Returns true if enough
    /// consecutive answers had it: from now on it is expected. A single one may be an accident.
    pub fn note_other_dimension(&self, dimension: usize) -> bool {
        let learned = &mut self.lock().dimension;
        let in_row = match learned.candidate {
            Some((candidate, in_row)) if candidate == dimension => in_row + 1,
            _ => 1,
        };
        learned.candidate = Some((dimension, in_row));
        if in_row < DIMENSION_PROOF {
            return false;
        }
        *learned = Dimension { proven: Some(dimension), candidate: None };
        true
    }

    /// Notes a failure of another kind, which ends a run of answers with one dimension.
    pub fn note_other_failure(&self) {
        self.lock().dimension.candidate = None;
    }

    /// Notes that an answer in `encoding` could not be read. `proven` is true if one such answer is sufficient proof.
    /// Returns true if the encoding has just become unreadable: from now on it is not requested.
    pub fn mark_unreadable(&self, encoding: Encoding, proven: bool, now_ms: u64) -> bool {
        let mut learned = self.lock();
        let lesson = learned.unreadable.entry(encoding).or_default();
        let was_given_up = lesson.is_proof(now_ms);
        // The larger number is proof whether or not earlier answers could be read.
        lesson.in_row = if proven { UNREADABLE_PROOF_AFTER_READ } else { lesson.in_row.saturating_add(1) };
        lesson.until_ms = now_ms.saturating_add(UNREADABLE_FOR_MS);
        lesson.is_proof(now_ms) && !was_given_up
    }

    /// Returns true if `encoding` proved unreadable recently.
    pub fn is_unreadable(&self, encoding: Encoding, now_ms: u64) -> bool {
        self.lock().unreadable.get(&encoding).is_some_and(|lesson| lesson.is_proof(now_ms))
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "spaces_tests.rs"]
mod tests;
