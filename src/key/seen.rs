//! Set of recently seen keys.
//!
//! It is an array and not a cache of a library: a key takes eight bytes, a lookup is one atomic operation, and a
//! forgotten key costs little. Keys do not expire.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Key;

/// Remembers keys by their marks. Newer keys overwrite older ones.
#[derive(Debug)]
pub struct SeenKeys(Box<[AtomicU64]>);

impl SeenKeys {
    /// Creates a set with room for this many keys, at least one. Each takes eight bytes.
    pub fn new(places: usize) -> Self {
        Self((0..places.max(1)).map(|_| AtomicU64::new(0)).collect())
    }

    /// Remembers a key; returns true if it was remembered already.
    pub fn note(&self, key: &Key) -> bool {
        let mark = key.mark();
        // One operation reads and writes, so only one of two concurrent first calls returns false.
        self.place(mark).swap(mark, Relaxed) == mark
    }

    /// Returns true if a key is remembered.
    pub fn has(&self, key: &Key) -> bool {
        let mark = key.mark();
        self.place(mark).load(Relaxed) == mark
    }

    fn place(&self, mark: u64) -> &AtomicU64 {
        &self.0[usize::try_from(mark).unwrap_or(usize::MAX) % self.0.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_remembered_until_another_one_replaces_it() {
        let (seen, key) = (SeenKeys::new(1), Key::from_bytes([1; 32]));
        assert!(!seen.has(&key));
        assert!(!seen.note(&key));
        assert!(seen.has(&key) && seen.note(&key));
        assert!(!seen.note(&Key::from_bytes([2; 32])));
        assert!(!seen.has(&key));
    }
}
