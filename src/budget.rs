//! A bound on bytes that requests under way hold together. Nothing waits here: what does not fit is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A number of bytes, of which some are held.
#[derive(Debug, Default)]
pub struct Budget {
    max_bytes: usize,
    held_bytes: AtomicUsize,
}

impl Budget {
    /// A budget of `max_bytes` of which nothing is held.
    pub const fn new(max_bytes: usize) -> Self {
        Self { max_bytes, held_bytes: AtomicUsize::new(0) }
    }

    /// The bound, in bytes.
    pub const fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// What is held now, in bytes.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes.load(Relaxed)
    }

    /// Holds `bytes` more, if they fit. Whoever gets true has to give them back.
    pub fn take(&self, bytes: usize) -> bool {
        let sum = |held: usize| held.checked_add(bytes).filter(|sum| *sum <= self.max_bytes);
        self.held_bytes.fetch_update(Relaxed, Relaxed, sum).is_ok()
    }

    /// Gives back what was taken.
    pub fn give_back(&self, bytes: usize) {
        if bytes > 0 {
            self.held_bytes.fetch_sub(bytes, Relaxed);
        }
    }
}

/// Bytes of a budget that several owners hold together; they are given back with the last of them. Used by `Arc`.
#[derive(Debug, Default)]
pub struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Charge {
    /// Takes over bytes that were taken from `budget`.
    pub const fn of(budget: Arc<Budget>, bytes: usize) -> Self {
        Self { budget, bytes }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_bound_is_held_and_the_last_owner_gives_it_back() {
        let budget = Arc::new(Budget::new(10));
        assert!(budget.take(7) && !budget.take(4) && budget.take(3) && !budget.take(usize::MAX));
        let charge = Arc::new(Charge::of(Arc::clone(&budget), 7));
        let other = Arc::clone(&charge);
        drop(charge);
        assert_eq!(budget.held_bytes(), 10);
        drop(other);
        assert_eq!(budget.held_bytes(), 3);
    }
}
