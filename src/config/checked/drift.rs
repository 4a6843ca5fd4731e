//! The model watch.

use std::time::Duration;

/// `[drift]`
#[derive(Clone, Copy, Debug)]
pub struct DriftConfig {
    /// `drift.every`; `None` at zero.
    pub every: Option<Duration>,
    /// `drift.action`.
    pub action: DriftAction,
    /// `drift.bound`.
    pub bound: f64,
}

/// `drift.action`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriftAction {
    /// Reports the change; the entries stay.
    Warn,
    /// Also takes older entries for those of an older model.
    Refetch,
}

impl DriftAction {
    /// Returns the word of the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warn => "warn",
            Self::Refetch => "refetch",
        }
    }
}
