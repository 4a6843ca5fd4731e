//! Generations invalidate data that is in flight or cached. A purge invalidates all fetches and renderings that began
//! before it. An import that replaces records invalidates all renderings that began before it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Number of purges with known names. Anything that began before those counts as purged.
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
    /// Models of the latest purges, the newest at the end; `None` for a purge of everything.
    known: Mutex<VecDeque<Option<Box<str>>>>,
}

impl Generations {
    /// Returns the generation of work that begins now.
    pub fn current(&self) -> Generation {
        Generation { purges: self.purges.load(Ordering::SeqCst), imports: self.imports.load(Ordering::SeqCst) }
    }

    /// Ends the current generation because of a purge of one model or of everything.
    pub fn next(&self, model: Option<&str>) {
        // The lock is held until the counter has changed, because `was_purged_since` reads list and counter together.
        let mut known = self.known();
        if known.len() == MAX_KNOWN {
            known.pop_front();
        }
        known.push_back(model.map(Box::from));
        self.purges.fetch_add(1, Ordering::SeqCst);
    }

    /// Ends the current generation without a purge, because an import replaced an older record. Earlier fetches stay
    /// valid; earlier renderings do not.
    pub fn outdate(&self) {
        self.imports.fetch_add(1, Ordering::SeqCst);
    }

    /// Returns true if a purge since `begun` covers any of these names.
    pub fn was_purged_since(&self, names: &[&str], begun: Generation) -> bool {
        // Mostly nothing was purged meanwhile; then no lock is taken.
        if self.current().purges == begun.purges {
            return false;
        }
        let known = self.known();
        let since = usize::try_from(self.current().purges.saturating_sub(begun.purges)).unwrap_or(usize::MAX);
        let covers = |model: &Option<Box<str>>| model.as_deref().is_none_or(|model| names.contains(&model));
        // Older purges have left the list. Their names are unknown, so they count as covering every name.
        since > known.len() || known.iter().rev().take(since).any(covers)
    }

    fn known(&self) -> MutexGuard<'_, VecDeque<Option<Box<str>>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purge_affects_only_earlier_work_on_the_named_model() {
        let purges = Generations::default();
        let begun = purges.current();
        assert!(!purges.was_purged_since(&["a"], begun));
        purges.next(Some("a"));
        assert!(purges.was_purged_since(&["a"], begun) && purges.was_purged_since(&["b", "a"], begun));
        assert!(!purges.was_purged_since(&["b"], begun) && !purges.was_purged_since(&["a"], purges.current()));
        purges.next(Some("b"));
        assert!(purges.was_purged_since(&["a"], begun), "a later purge hides no earlier one");
        purges.next(None);
        assert!(purges.was_purged_since(&["c"], begun) && !purges.was_purged_since(&["c"], purges.current()));
    }

    #[test]
    fn an_import_starts_a_new_generation_but_purges_nothing() {
        let generations = Generations::default();
        let begun = generations.current();
        generations.outdate();
        assert_ne!(generations.current(), begun);
        assert!(!generations.was_purged_since(&["a"], begun));
    }

    #[test]
    fn work_older_than_the_known_purges_counts_as_purged() {
        let purges = Generations::default();
        let begun = purges.current();
        for _ in 0..MAX_KNOWN {
            purges.next(Some("a"));
        }
        assert!(!purges.was_purged_since(&["b"], begun));
        purges.next(Some("a"));
        assert!(purges.was_purged_since(&["b"], begun));
    }
}
