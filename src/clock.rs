//! The time of day, as a handle, so that a test can let a record grow old without waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

/// A time in milliseconds since the Unix epoch, in RFC 3339: UTC, to the second.
pub fn rfc3339(at_ms: u64) -> String {
    // The years that the format has: up to 9999.
    const LAST_MS: u64 = 253_402_300_799_999;
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(at_ms.min(LAST_MS))).to_string()
}

/// A time during which something went on that operators are told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spell {
    /// It goes on, since then, in milliseconds since the epoch.
    Since(u64),
    /// It is over, and went on until then.
    Until(u64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_in_rfc_3339_is_utc_to_the_second() {
        assert_eq!(rfc3339(1_700_000_000_999), "2023-11-14T22:13:20Z");
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59Z");
    }
}
