//! The order in which waiting calls get their turns.

use crate::config::Priority;

/// Order of a waiting call. Calls of a smaller one go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::upstream) enum TurnOrder {
    /// An interactive call that the service has refused for its rate.
    InteractiveAgain,
    /// An interactive call.
    Interactive,
    /// A bulk call that the service has refused for its rate.
    BulkAgain,
    /// A bulk call.
    Bulk,
}

impl TurnOrder {
    /// Number of orders.
    pub(super) const COUNT: usize = 4;

    /// Returns the order of a call. `is_again` is true if the service has refused it before.
    pub(in crate::upstream) const fn of(priority: Priority, is_again: bool) -> Self {
        match (priority, is_again) {
            (Priority::Interactive, true) => Self::InteractiveAgain,
            (Priority::Interactive, false) => Self::Interactive,
            (Priority::Bulk, true) => Self::BulkAgain,
            (Priority::Bulk, false) => Self::Bulk,
        }
    }

    /// Returns true for bulk calls.
    pub(super) const fn is_bulk(self) -> bool {
        matches!(self, Self::BulkAgain | Self::Bulk)
    }

    /// Returns its place among the orders.
    pub(super) const fn index(self) -> usize {
        self as usize
    }
}
