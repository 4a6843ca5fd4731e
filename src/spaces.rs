//! What the newest answers taught about each space: which model answers, how long its vectors are, which encoding
//! cannot be read.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::key::{Key, KeyMap};
use crate::wire::Encoding;

/// Spaces remembered at once; beyond it one is forgotten, which costs one re-learning.
const MAX_SPACES: usize = 10_000;

/// Spaces that are looked at for one to forget.
const CANDIDATES: usize = 256;

/// How long an encoding that proved unreadable is not asked for again.
const UNREADABLE_FOR_MS: u64 = 60_000;

/// How long it holds that no tier below memory knows who answers.
const ASK_AGAIN_AFTER_MS: u64 = 60_000;

/// Unreadable answers in a row that prove it. One may be an accident.
const UNREADABLE_PROOF: u32 = 3;

/// Likewise where answers could be read before.
const UNREADABLE_PROOF_AFTER_READ: u32 = 20;
/// Answers in a row with one dimension that was not asked for, from which on the upstream ignores the one asked for.
const DIMENSION_PROOF: u32 = 3;

/// All spaces in use. A space is known by the key of its context: scope, upstream, model and every shaping field.
#[derive(Default)]
pub struct Spaces {
    known: RwLock<KeyMap<Arc<Lessons>>>,
}

/// What is known of one space.
#[derive(Default)]
pub struct Lessons {
    learned: Mutex<Learned>,
    /// Whether vectors of two models may be stored.
    is_mixed: AtomicBool,
    /// How often something was kept in place of another vector that would still have served.
    refreshes: AtomicU64,
    /// Whether answers have an `id`, which strict clients then demand of hits as well. Unknown before the first answer in
    /// this process.
    has_ids: Mutex<Option<bool>>,
}

#[derive(Default)]
struct Learned {
    identity: Option<Identity>,
    /// Whether another identity than the present one has been met.
    has_changed: bool,
    /// When all tiers below memory were asked who answered last.
    asked_for_at_ms: Option<u64>,
    /// Whose record lies below memory as the newest of the space.
    noted: Option<Identity>,
    is_forgotten: bool,
    tokenizer: Tokenizer,
    unreadable: HashMap<Encoding, Unreadable>,
    dimension: Dimension,
}

/// Dimension of answers where the upstream ignores the one that requests ask for.
#[derive(Clone, Copy, Default)]
struct Dimension {
    proven: Option<usize>,
    /// Another one, and how many answers in a row had it.
    candidate: Option<(usize, u32)>,
}

#[derive(Clone, Copy, Default)]
struct Unreadable {
    /// True if answers could be read before. Then a few texts without a usable vector say nothing of the others.
    was_read: bool,
    in_row: u32,
    until_ms: u64,
}

impl Unreadable {
    const fn is_proof(self, now_ms: u64) -> bool {
        let enough = if self.was_read { UNREADABLE_PROOF_AFTER_READ } else { UNREADABLE_PROOF };
        self.in_row >= enough && now_ms < self.until_ms
    }
}

/// Who made a vector: vectors of two identities must not stand in one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The model's name as the upstream gave it.
    pub model: Arc<str>,
    /// The length of its vectors.
    pub dimension: usize,
}

/// Whether the tokens that the upstream counts are those of `cl100k_base`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tokenizer {
    /// Not found out yet.
    #[default]
    Unknown,
    /// They are not: the tokens of a text are only known from the sum of its call.
    Other,
}

/// What an answer changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lesson {
    /// Nothing; the same model answered.
    Known,
    /// It was the first answer.
    First,
    /// Another model answered than before: older vectors are misses.
    Drift,
}

impl Spaces {
    /// The lessons of a space, empty at first.
    pub fn of(&self, space: Key) -> Arc<Lessons> {
        if let Some(known) = self.known.read().unwrap_or_else(PoisonError::into_inner).get(&space) {
            return Arc::clone(known);
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_SPACES
            && let Some(one) = one_to_forget(&known)
        {
            // A rendered answer may still hold these lessons, and would never hear of a change of model.
            if let Some(forgotten) = known.remove(&one) {
                forgotten.lock().is_forgotten = true;
            }
        }
        Arc::clone(known.entry(space).or_default())
    }

    /// The lessons of a space, where there are any. Makes no entry for it.
    pub fn find(&self, space: &Key) -> Option<Arc<Lessons>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(space).cloned()
    }
}

/// An arbitrary one, but rather not one of which vectors of two models may be stored: without its lessons both would be
/// served.
fn one_to_forget(known: &KeyMap<Arc<Lessons>>) -> Option<Key> {
    let is_mixed = |lessons: &Lessons| lessons.is_mixed.load(Ordering::Relaxed);
    let plain = known.iter().take(CANDIDATES).find(|(_, lessons)| !is_mixed(lessons));
    plain.map(|(key, _)| key).or_else(|| known.keys().next()).copied()
}

impl Lessons {
    /// Who answers for this space now, as far as known.
    pub fn identity(&self) -> Option<Identity> {
        self.lock().identity.clone()
    }

    /// Whether a vector of `identity` may be served: it may, unless a newer answer named another model.
    pub fn accepts(&self, identity: &Identity) -> bool {
        let learned = self.lock();
        !learned.is_forgotten && learned.identity.as_ref().is_none_or(|current| current == identity)
    }

    /// Takes in who answered. Returns the identity to keep, sharing its name with earlier ones.
    pub fn learn(&self, model: &str, dimension: usize) -> (Identity, Lesson) {
        let mut learned = self.lock();
        let lesson = match &learned.identity {
            Some(current) if &*current.model == model && current.dimension == dimension => {
                return (current.clone(), Lesson::Known);
            }
            Some(_) => Lesson::Drift,
            None => Lesson::First,
        };
        let identity = Identity { model: Arc::from(model), dimension };
        if lesson == Lesson::Drift {
            learned.has_changed = true;
            self.is_mixed.store(true, Ordering::Relaxed);
        }
        learned.identity = Some(identity.clone());
        (identity, lesson)
    }

    /// Whether nobody knows who answers, and the tiers below memory have yet to be asked, or to be asked again: the one
    /// that knows may have been late, and another process may have met a newer model since.
    pub fn is_to_be_asked_for(&self, now_ms: u64) -> bool {
        let learned = self.lock();
        let was_just_asked = |at: u64| now_ms.saturating_sub(at) < ASK_AGAIN_AFTER_MS;
        learned.identity.is_none() && !learned.asked_for_at_ms.is_some_and(was_just_asked)
    }

    /// All tiers below memory were asked.
    pub fn was_asked_for(&self, now_ms: u64) {
        self.lock().asked_for_at_ms = Some(now_ms);
    }

    /// Takes in who answered last in the life of another process, if nobody has answered in this one's yet.
    pub fn recall(&self, identity: &Identity) {
        let mut learned = self.lock();
        if learned.identity.is_none() {
            learned.identity = Some(identity.clone());
            learned.noted = Some(identity.clone());
            learned.has_changed = true;
        }
    }

    /// There may be records of an older identity below memory.
    pub fn expect_older(&self) {
        self.lock().has_changed = true;
    }

    /// A record of an older identity was met.
    pub fn meet_older(&self) {
        self.expect_older();
        self.is_mixed.store(true, Ordering::Relaxed);
    }

    /// Something was kept in place of another vector that would still have served.
    pub fn note_refresh(&self) {
        self.refreshes.fetch_add(1, Ordering::SeqCst);
    }

    /// Notes whether an answer of this space has an `id`. One is enough.
    pub fn note_id(&self, has_id: bool) {
        let mut has_ids = self.has_ids.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = has_id && *has_ids == Some(false);
        *has_ids = Some(has_id || *has_ids == Some(true));
        if is_news {
            // Replies that were put together without one are out of date.
            self.note_refresh();
        }
    }

    /// Returns true if answers of this space have an `id`, as far as this process has seen any.
    pub fn may_have_ids(&self) -> bool {
        self.has_ids.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(true)
    }

    /// How often that was so. What was put together from stored vectors is a view of them as long as it has not risen.
    pub fn refreshes(&self) -> u64 {
        self.refreshes.load(Ordering::SeqCst)
    }

    /// Whether it has yet to be noted below memory that `identity` answers where another one did before; from now on it
    /// has not.
    pub fn must_be_noted(&self, identity: &Identity) -> bool {
        let mut learned = self.lock();
        let is_news = learned.has_changed && learned.noted.as_ref() != Some(identity);
        if is_news {
            learned.noted = Some(identity.clone());
        }
        is_news
    }

    /// How the upstream counts tokens, as far as known.
    pub fn tokenizer(&self) -> Tokenizer {
        self.lock().tokenizer
    }

    /// Notes how the upstream counts tokens.
    pub fn set_tokenizer(&self, tokenizer: Tokenizer) {
        self.lock().tokenizer = tokenizer;
    }

    /// Notes that an answer in `encoding` could be read.
    pub fn mark_readable(&self, encoding: Encoding) {
        let mut learned = self.lock();
        learned.unreadable.insert(encoding, Unreadable { was_read: true, ..Unreadable::default() });
        learned.dimension.candidate = None;
    }

    /// Returns the dimension that vectors of this space are known to have: that of several answers in a row although another
    /// one was expected, else that of the newest vector, also of one that was stored by another process.
    pub fn known_dimension(&self) -> Option<usize> {
        let learned = self.lock();
        let newest = || learned.identity.as_ref().map(|identity| identity.dimension);
        learned.dimension.proven.or_else(newest)
    }

    /// Notes an answer whose vectors all had `dimension`, which was not expected. Returns true if enough answers in a row
    /// had it: from now on it is expected. A single one may be an accident.
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

    /// Notes a failure of another kind, which ends a row of answers with one dimension.
    pub fn note_other_failure(&self) {
        self.lock().dimension.candidate = None;
    }

    /// Notes that an answer in `encoding` could not be read. `proven` where one such answer says it all. Says whether that
    /// is news: from now on it is not asked for.
    pub fn mark_unreadable(&self, encoding: Encoding, proven: bool, now_ms: u64) -> bool {
        let mut learned = self.lock();
        let lesson = learned.unreadable.entry(encoding).or_default();
        let was_given_up = lesson.is_proof(now_ms);
        lesson.in_row = if proven { UNREADABLE_PROOF_AFTER_READ } else { lesson.in_row.saturating_add(1) };
        lesson.until_ms = now_ms.saturating_add(UNREADABLE_FOR_MS);
        lesson.is_proof(now_ms) && !was_given_up
    }

    /// Whether `encoding` proved unreadable a short while ago.
    pub fn is_unreadable(&self, encoding: Encoding, now_ms: u64) -> bool {
        self.lock().unreadable.get(&encoding).is_some_and(|lesson| lesson.is_proof(now_ms))
    }

    fn lock(&self) -> MutexGuard<'_, Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "spaces_tests.rs"]
mod tests;
