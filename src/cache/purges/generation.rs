//! Generations invalidate data that is in flight or cached. A purge invalidates all fetches and renderings that began
//! before it. An import that replaces records invalidates all renderings that began before it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use super::subject::PurgeSubject;
use crate::key::Key;

/// Number of purges with known subjects. Anything that began before those counts as purged.
const MAX_KNOWN: usize = 128;

/// Largest number of keys of one known subject. Beyond it, older forgets are not merged any more.
const MAX_KEYS: usize = 20_000;

/// Period between two such events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation {
    purges: u64,
    imports: u64,
}

/// Counter of generations.
#[derive(Debug, Default)]
pub struct Generations {
    purges: AtomicU64,
    imports: AtomicU64,
    /// Subjects of the latest purges. Many threads read them at once, each for every record that it stores.
    known: RwLock<KnownPurges>,
}

/// Subjects of the latest purges.
#[derive(Debug, Default)]
struct KnownPurges {
    /// The latest purge of each subject, the newest at the end.
    purges: VecDeque<KnownPurge>,
    /// Number of the latest purge whose subject is not known any more.
    unknown_up_to: u64,
}

/// The latest purge of a subject.
#[derive(Debug)]
struct KnownPurge {
    /// Its number, from 1.
    number: u64,
    subject: PurgeSubject,
}

impl Generations {
    /// Returns the generation of work that begins now.
    pub fn current(&self) -> Generation {
        Generation { purges: self.purges.load(Ordering::SeqCst), imports: self.imports.load(Ordering::SeqCst) }
    }

    /// Ends the current generation because of a purge.
    pub fn next(&self, subject: &PurgeSubject) {
        // The lock is held until the counter has changed, because `was_purged_since` reads list and counter together.
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.add(subject, self.purges.load(Ordering::SeqCst) + 1);
        self.purges.fetch_add(1, Ordering::SeqCst);
    }

    /// Ends the current generation without a purge, because an import replaced an older record. Earlier fetches stay
    /// valid; earlier renderings do not.
    pub fn outdate(&self) {
        self.imports.fetch_add(1, Ordering::SeqCst);
    }

    /// Returns true if a purge since `begun` covers the entry of `key`, whose model has these names.
    pub fn was_purged_since(&self, key: &Key, names: &[&str], begun: Generation) -> bool {
        // Mostly nothing was purged meanwhile; then no lock is taken.
        if self.current().purges == begun.purges {
            return false;
        }
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        // Older purges have left the list. Their subjects are unknown, so they count as covering every entry.
        let mut since = known.purges.iter().filter(|purge| purge.number > begun.purges);
        begun.purges < known.unknown_up_to || since.any(|purge| purge.subject.covers(key, names))
    }
}

impl KnownPurges {
    /// Adds a purge. It replaces an earlier one of the same subject, since both cover the same entries.
    fn add(&mut self, subject: &PurgeSubject, number: u64) {
        self.purges.retain(|purge| purge.subject != *subject);
        if self.purges.len() == MAX_KNOWN && !self.merge_forgets() {
            let oldest = self.purges.pop_front();
            self.unknown_up_to = oldest.map_or(number, |oldest| oldest.number);
        }
        self.purges.push_back(KnownPurge { number, subject: subject.clone() });
    }

    /// Merges the two oldest forgets, so that many forgets of few keys hide no earlier purge. The keys of both then count
    /// as forgotten at the later time. Returns false if there are no two, or if they have too many keys.
    fn merge_forgets(&mut self) -> bool {
        let is_forget = |purge: &KnownPurge| matches!(purge.subject, PurgeSubject::Inputs(_));
        let mut places = (0..self.purges.len()).filter(|place| is_forget(&self.purges[*place]));
        let (Some(older), Some(newer)) = (places.next(), places.next()) else { return false };
        let Some(merged) = self.purges[older].subject.merged(&self.purges[newer].subject, MAX_KEYS) else {
            return false;
        };
        self.purges[newer].subject = merged;
        self.purges.remove(older);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key::from_bytes([1; 32]);

    fn model(name: &str) -> PurgeSubject {
        PurgeSubject::of_model(Some(name))
    }

    #[test]
    fn a_purge_affects_only_earlier_work_on_the_named_model() {
        let purges = Generations::default();
        let begun = purges.current();
        assert!(!purges.was_purged_since(&KEY, &["a"], begun));
        purges.next(&model("a"));
        assert!(purges.was_purged_since(&KEY, &["a"], begun) && purges.was_purged_since(&KEY, &["b", "a"], begun));
        assert!(
            !purges.was_purged_since(&KEY, &["b"], begun) && !purges.was_purged_since(&KEY, &["a"], purges.current())
        );
        purges.next(&model("b"));
        assert!(purges.was_purged_since(&KEY, &["a"], begun), "a later purge hides no earlier one");
        purges.next(&PurgeSubject::Everything);
        assert!(
            purges.was_purged_since(&KEY, &["c"], begun) && !purges.was_purged_since(&KEY, &["c"], purges.current())
        );
    }

    #[test]
    fn a_forget_affects_only_earlier_work_on_the_same_key() {
        let purges = Generations::default();
        let begun = purges.current();
        purges.next(&PurgeSubject::of_inputs(&[KEY]));
        assert!(purges.was_purged_since(&KEY, &["a"], begun));
        assert!(!purges.was_purged_since(&Key::from_bytes([2; 32]), &["a"], begun));
        assert!(!purges.was_purged_since(&KEY, &["a"], purges.current()));
    }

    #[test]
    fn an_import_starts_a_new_generation_but_purges_nothing() {
        let generations = Generations::default();
        let begun = generations.current();
        generations.outdate();
        assert_ne!(generations.current(), begun);
        assert!(!generations.was_purged_since(&KEY, &["a"], begun));
    }

    #[test]
    fn work_older_than_the_known_purges_counts_as_purged() {
        let purges = Generations::default();
        let begun = purges.current();
        for n in 0..MAX_KNOWN {
            purges.next(&model(&n.to_string()));
            purges.next(&model(&n.to_string()));
        }
        assert!(!purges.was_purged_since(&KEY, &["b"], begun), "a repeated purge is known once");
        let later = purges.current();
        purges.next(&model("a"));
        assert!(purges.was_purged_since(&KEY, &["b"], begun));
        assert!(!purges.was_purged_since(&KEY, &["b"], later) && purges.was_purged_since(&KEY, &["a"], later));
    }

    #[test]
    fn many_forgets_of_few_keys_cover_only_these_keys() {
        let (purges, keys) = (Generations::default(), 0..4 * MAX_KNOWN as u64);
        let key = |n: u64| KEY.extend(crate::key::Tag::Text, &n.to_le_bytes());
        let begun = purges.current();
        purges.next(&model("a"));
        for n in keys.clone() {
            purges.next(&PurgeSubject::of_inputs(&[key(n)]));
            purges.next(&PurgeSubject::of_inputs(&[key(n)]));
        }
        assert!(keys.into_iter().all(|n| purges.was_purged_since(&key(n), &["b"], begun)));
        assert!(!purges.was_purged_since(&KEY, &["b"], begun), "other keys stay");
        assert!(purges.was_purged_since(&KEY, &["a"], begun), "the purge of a model is still known");
    }

    #[test]
    fn forgets_with_too_many_keys_are_not_merged() {
        let purges = Generations::default();
        let keys = |n: u64| -> Vec<Key> {
            (0..MAX_KEYS as u64)
                .map(|m| KEY.extend(crate::key::Tag::Text, &[n, m].map(u64::to_le_bytes).concat()))
                .collect()
        };
        let begun = purges.current();
        for n in 0..2 {
            purges.next(&PurgeSubject::of_inputs(&keys(n)));
        }
        for n in 0..MAX_KNOWN {
            purges.next(&model(&n.to_string()));
        }
        assert!(purges.was_purged_since(&KEY, &["b"], begun));
    }
}
