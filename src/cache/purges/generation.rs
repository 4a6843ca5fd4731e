//! Generations invalidate data that is in flight or cached. A purge invalidates all fetches and renderings that began
//! before it. An import that replaces records invalidates all renderings that began before it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::subject::PurgeSubject;
use crate::key::Key;

/// Number of purges with known subjects. Anything that began before those counts as purged.
const MAX_KNOWN: usize = 128;

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
    /// Subjects of the latest purges, the newest at the end.
    known: Mutex<VecDeque<PurgeSubject>>,
}

impl Generations {
    /// Returns the generation of work that begins now.
    pub fn current(&self) -> Generation {
        Generation { purges: self.purges.load(Ordering::SeqCst), imports: self.imports.load(Ordering::SeqCst) }
    }

    /// Ends the current generation because of a purge.
    pub fn next(&self, subject: &PurgeSubject) {
        // The lock is held until the counter has changed, because `was_purged_since` reads list and counter together.
        let mut known = self.known();
        if known.len() == MAX_KNOWN {
            known.pop_front();
        }
        known.push_back(subject.clone());
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
        let known = self.known();
        let since = usize::try_from(self.current().purges.saturating_sub(begun.purges)).unwrap_or(usize::MAX);
        // Older purges have left the list. Their subjects are unknown, so they count as covering every entry.
        since > known.len() || known.iter().rev().take(since).any(|subject| subject.covers(key, names))
    }

    fn known(&self) -> MutexGuard<'_, VecDeque<PurgeSubject>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
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
        for _ in 0..MAX_KNOWN {
            purges.next(&model("a"));
        }
        assert!(!purges.was_purged_since(&KEY, &["b"], begun));
        purges.next(&model("a"));
        assert!(purges.was_purged_since(&KEY, &["b"], begun));
    }
}
