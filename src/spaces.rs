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
}

#[derive(Clone, Copy, Default)]
struct Unreadable {
    in_row: u32,
    until_ms: u64,
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
    /// They are: a text's tokens can be counted here, when somebody wants to know.
    Cl100k,
    /// They are not: a text's tokens are only known from what its call cost.
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
        self.lock().unreadable.remove(&encoding);
    }

    /// Notes that an answer in `encoding` could not be read. `proven` where one such answer says it all. Says whether that
    /// is news: from now on it is not asked for.
    pub fn mark_unreadable(&self, encoding: Encoding, proven: bool, now_ms: u64) -> bool {
        let mut learned = self.lock();
        let lesson = learned.unreadable.entry(encoding).or_default();
        let was_given_up = lesson.in_row >= UNREADABLE_PROOF && now_ms < lesson.until_ms;
        lesson.in_row = if proven { UNREADABLE_PROOF } else { lesson.in_row.saturating_add(1) };
        lesson.until_ms = now_ms.saturating_add(UNREADABLE_FOR_MS);
        lesson.in_row >= UNREADABLE_PROOF && !was_given_up
    }

    /// Whether `encoding` proved unreadable a short while ago.
    pub fn is_unreadable(&self, encoding: Encoding, now_ms: u64) -> bool {
        let lesson = self.lock().unreadable.get(&encoding).copied().unwrap_or_default();
        lesson.in_row >= UNREADABLE_PROOF && now_ms < lesson.until_ms
    }

    fn lock(&self) -> MutexGuard<'_, Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{KeyBuilder, Tag};

    #[test]
    fn another_model_name_makes_older_vectors_misses() {
        let lessons = Spaces::default().of(KeyBuilder::new(None).finish());
        let (first, lesson) = lessons.learn("a", 8);
        assert_eq!(lesson, Lesson::First);
        assert!(lessons.accepts(&first));
        assert_eq!(lessons.learn("a", 8).1, Lesson::Known);
        assert_eq!(lessons.learn("b", 8).1, Lesson::Drift);
        assert!(!lessons.accepts(&first));
    }

    #[test]
    fn what_is_recalled_counts_until_somebody_answers() {
        let (then, now) = (Lessons::default().learn("a", 8).0, Lessons::default());
        now.recall(&then);
        assert_eq!(now.learn("b", 8).1, Lesson::Drift);
        now.recall(&then);
        assert_eq!(now.identity().map(|identity| identity.model.to_string()).as_deref(), Some("b"));
    }

    #[test]
    fn each_change_of_who_answers_is_noted_once() {
        let lessons = Lessons::default();
        let (a, _) = lessons.learn("a", 8);
        assert!(!lessons.must_be_noted(&a), "nothing else has ever answered");
        let (b, _) = lessons.learn("b", 8);
        let noted = [&b, &b, &a, &b].map(|identity| lessons.must_be_noted(identity));
        assert_eq!(noted, [true, false, true, true]);
        let recalling = Lessons::default();
        recalling.recall(&a);
        assert!(!recalling.must_be_noted(&a));
        let meeting = Lessons::default();
        let (a, _) = meeting.learn("a", 8);
        meeting.meet_older();
        assert!(meeting.must_be_noted(&a));
    }

    #[test]
    fn what_is_forgotten_accepts_nothing_any_more() {
        let spaces = Spaces::default();
        let root = KeyBuilder::new(None).finish();
        let learned: Vec<_> = (0..=MAX_SPACES as u64)
            .map(|n| spaces.of(root.extend(Tag::Model, &n.to_le_bytes())))
            .map(|lessons| (lessons.learn("a", 8).0, lessons))
            .collect();
        let forgotten = learned.iter().filter(|(identity, lessons)| !lessons.accepts(identity)).count();
        assert_eq!(forgotten, 1, "one had to go for the last one");
    }

    #[test]
    fn a_space_in_which_the_model_changed_is_not_forgotten_for_others() {
        let spaces = Spaces::default();
        let root = KeyBuilder::new(None).finish();
        let of = |tag, n: u64| spaces.of(root.extend(tag, &n.to_le_bytes()));
        let changed: Vec<_> = (0..64).map(|n| of(Tag::Model, n)).collect();
        for lessons in &changed {
            lessons.learn("a", 8);
            lessons.learn("b", 8);
        }
        for n in 0..2 * MAX_SPACES as u64 {
            of(Tag::Text, n).expect_older();
        }
        assert!((0..).zip(&changed).all(|(n, lessons)| Arc::ptr_eq(lessons, &of(Tag::Model, n))));
    }

    #[test]
    fn where_the_model_changed_in_all_spaces_one_of_them_goes() {
        let spaces = Spaces::default();
        let root = KeyBuilder::new(None).finish();
        for n in 0..(MAX_SPACES as u64 + 50) {
            spaces.of(root.extend(Tag::Model, &n.to_le_bytes())).meet_older();
        }
        assert_eq!(spaces.known.read().expect("not poisoned").len(), MAX_SPACES);
    }

    #[test]
    fn looking_for_a_space_makes_none() {
        let spaces = Spaces::default();
        let space = KeyBuilder::new(None).finish();
        assert!(spaces.find(&space).is_none() && spaces.known.read().expect("not poisoned").is_empty());
        spaces.of(space).learn("a", 8);
        assert!(spaces.find(&space).is_some_and(|lessons| lessons.identity().is_some()));
    }

    #[test]
    fn spaces_stay_bounded() {
        let spaces = Spaces::default();
        let root = KeyBuilder::new(None).finish();
        for n in 0..(MAX_SPACES as u64 + 50) {
            spaces.of(root.extend(Tag::Model, &n.to_le_bytes()));
        }
        assert_eq!(spaces.known.read().expect("not poisoned").len(), MAX_SPACES);
    }

    #[test]
    fn an_unreadable_encoding_is_tried_again_after_a_while() {
        let lessons = Lessons::default();
        lessons.mark_unreadable(Encoding::Base64, true, 1_000);
        assert!(lessons.is_unreadable(Encoding::Base64, 60_999));
        assert!(!lessons.is_unreadable(Encoding::Float, 1_001));
        assert!(!lessons.is_unreadable(Encoding::Base64, 61_000));
    }

    #[test]
    fn one_unreadable_answer_is_an_accident_and_three_in_a_row_are_not() {
        let lessons = Lessons::default();
        for _ in 0..2 {
            lessons.mark_unreadable(Encoding::Float, false, 0);
            lessons.mark_unreadable(Encoding::Float, false, 0);
            assert!(!lessons.is_unreadable(Encoding::Float, 1));
            lessons.mark_readable(Encoding::Float);
        }
        for _ in 0..3 {
            lessons.mark_unreadable(Encoding::Float, false, 0);
        }
        assert!(lessons.is_unreadable(Encoding::Float, 1));
    }
}
