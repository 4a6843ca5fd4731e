//! Counts purges, so that nothing that was fetched or rendered before one survives it.

use std::sync::atomic::{AtomicU64, Ordering};

/// One stretch of time between two purges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(u64);

/// The count itself.
#[derive(Debug, Default)]
pub struct Generations(AtomicU64);

impl Generations {
    /// The generation to which whatever begins now belongs.
    pub fn current(&self) -> Generation {
        Generation(self.0.load(Ordering::SeqCst))
    }

    /// Ends the current generation: a purge begins.
    pub fn next(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}
