//! The time of day, as a handle, so that a test can let a record grow old without waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Where "now" comes from. Cheap to clone; clones of a manual clock move together.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The operating system's time of day.
    #[default]
    System,
    /// Time that stands still until it is told to move. For tests.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// A clock that shows `now_ms` until [`Clock::advance_ms`] moves it.
    pub fn manual(now_ms: u64) -> Self {
        Self::Manual(Arc::new(AtomicU64::new(now_ms)))
    }

    /// Milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        match self {
            Self::System => system_ms(),
            Self::Manual(at) => at.load(Ordering::SeqCst),
        }
    }

    /// Moves a manual clock forward. The system's clock cannot be moved; there it does nothing.
    pub fn advance_ms(&self, by_ms: u64) {
        if let Self::Manual(at) = self {
            at.fetch_add(by_ms, Ordering::SeqCst);
        }
    }
}

fn system_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

/// A time during which something went on that operators are told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spell {
    /// It goes on, since then, in milliseconds since the epoch.
    Since(u64),
    /// It is over, and went on until then.
    Until(u64),
}
