//! The lengths of the vectors of each space. The length of most vectors counts, so one damaged answer decides nothing.

use std::collections::{BTreeMap, HashMap};

use crate::key::Key;

/// Number of vectors by their length, for each space.
#[derive(Debug, Default)]
pub(super) struct VectorLengths(HashMap<Key, BTreeMap<usize, u64>>);

impl VectorLengths {
    /// Counts a vector of `length` components.
    pub(super) fn count(&mut self, space: Key, length: usize) {
        *self.0.entry(space).or_default().entry(length).or_default() += 1;
    }

    /// Returns the length of the vectors of a space, as far as answers show it. Fails if two lengths are equally
    /// frequent.
    pub(super) fn of(&self, space: &Key) -> Result<Option<usize>, String> {
        let Some(counts) = self.0.get(space) else { return Ok(None) };
        let most = counts.values().max();
        let mut frequent = counts.iter().filter(|(_, count)| Some(*count) == most).map(|(length, _)| *length);
        match (frequent.next(), frequent.next()) {
            (Some(one), Some(other)) => Err(format!(
                "the job has as many vectors of {one} components as of {other} for its model, so neither can be trusted"
            )),
            (first, _) => Ok(first),
        }
    }
}
