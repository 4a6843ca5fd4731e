//! The order in which waiting calls get their turns.

use crate::config::Priority;
use crate::key::Key;

/// Order of a waiting call. Calls of a smaller one go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::upstream) enum TurnOrder {
    /// A small interactive call that need not wait for the hold after a large one, and so not for other calls that do.
    Small,
    /// An interactive call that the service has refused for its rate.
    InteractiveAgain,
    /// An interactive call.
    Interactive,
    /// A call of a bulk request for whose texts an interactive one waits.
    Hastened,
    /// A bulk call that the service has refused for its rate.
    BulkAgain,
    /// A bulk call.
    Bulk,
}

/// A call that needs a turn.
#[derive(Clone, Copy, Debug)]
pub(in crate::upstream) struct TurnWish {
    pub(in crate::upstream) order: TurnOrder,
    /// Caller that it is made for.
    pub(in crate::upstream) caller: Key,
    /// Expected tokens.
    pub(in crate::upstream) tokens: usize,
}

impl TurnOrder {
    /// Number of orders.
    pub(super) const COUNT: usize = 6;

    /// Returns the order of a call. `is_again` is true if the service has refused it before.
    pub(in crate::upstream) const fn of(priority: Priority, is_again: bool) -> Self {
        match (priority, is_again) {
            (Priority::Interactive, true) => Self::InteractiveAgain,
            (Priority::Interactive, false) => Self::Interactive,
            (Priority::Bulk, true) => Self::BulkAgain,
            (Priority::Bulk, false) => Self::Bulk,
        }
    }

    /// Returns true for calls of bulk requests, which leave a reserve.
    pub(super) const fn is_bulk(self) -> bool {
        matches!(self, Self::Hastened | Self::BulkAgain | Self::Bulk)
    }

    /// Returns its place among the orders.
    pub(super) const fn index(self) -> usize {
        self as usize
    }
}
