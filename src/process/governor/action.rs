//! Actions of the governor, as the log, the metrics and the dashboard name them.

use serde::Serialize;

/// Kind of action against high memory use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GovernorAction {
    /// Freed memory was returned to the operating system.
    Trim,
    /// Caches evicted entries, and the freed memory was returned.
    Shrink,
    /// An operator requested a reduction. The trims and shrinks that it needed are actions of their own.
    Optimize,
}

impl GovernorAction {
    /// Every kind.
    pub const ALL: &'static [Self] = &[Self::Trim, Self::Shrink, Self::Optimize];

    /// Returns the name in logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Trim => "trim",
            Self::Shrink => "shrink",
            Self::Optimize => "optimize",
        }
    }
}

/// Trim or shrink with its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Action {
    /// Time in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Kind of the action.
    pub kind: GovernorAction,
    /// Resident memory before the action, in bytes.
    pub resident_before: u64,
    /// Resident memory after the action, in bytes.
    pub resident_after: u64,
}
