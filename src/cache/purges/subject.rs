//! The entries that a purge covers.

use std::sync::Arc;

use super::counts::EVERYTHING;
use crate::key::Key;

/// Entries that a purge covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PurgeSubject {
    /// All entries.
    Everything,
    /// The entries of one model, by the upstream's or the caller's name.
    Model(Arc<str>),
    /// The entries of these keys, which are sorted.
    Inputs(Arc<[Key]>),
}

impl PurgeSubject {
    /// Returns the subject of a purge of one model or of everything.
    pub fn of_model(model: Option<&str>) -> Self {
        model.map_or(Self::Everything, |model| Self::Model(Arc::from(model)))
    }

    /// Returns the subject that is counted under this name in the [`super::PurgeRegistry`].
    pub fn counted_as(name: &str) -> Self {
        Self::of_model((name != EVERYTHING).then_some(name))
    }

    /// Returns the subject of a forget.
    pub fn of_inputs(keys: &[Key]) -> Self {
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        keys.dedup();
        Self::Inputs(keys.into())
    }

    /// Returns the subject of two forgets together, or `None` if they are no forgets or have more keys than `max_keys`.
    pub fn merged(&self, other: &Self, max_keys: usize) -> Option<Self> {
        let (Self::Inputs(ours), Self::Inputs(theirs)) = (self, other) else { return None };
        (ours.len() + theirs.len() <= max_keys).then(|| Self::of_inputs(&[&**ours, &**theirs].concat()))
    }

    /// Returns true if it covers the entry of `key`, whose model has these names.
    pub fn covers(&self, key: &Key, models: &[&str]) -> bool {
        match self {
            Self::Everything => true,
            Self::Model(model) => models.contains(&&**model),
            Self::Inputs(keys) => keys.binary_search(key).is_ok(),
        }
    }
}
