//! Time of day behind a handle, so tests can let a record expire without waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Source of the current time. Cheap to clone; clones of a manual clock move together.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The operating system's clock.
    #[default]
    System,
    /// A clock that moves only on request. For tests.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// Creates a clock that shows `now_ms` until [`Clock::advance_ms`] moves it.
    pub fn manual(now_ms: u64) -> Self {
        Self::Manual(Arc::new(AtomicU64::new(now_ms)))
    }

    /// Returns the milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        match self {
            Self::System => system_ms(),
            Self::Manual(at) => at.load(Ordering::SeqCst),
        }
    }

    /// Moves a manual clock forward. Has no effect on the system's clock.
    pub fn advance_ms(&self, by_ms: u64) {
        if let Self::Manual(at) = self {
            at.fetch_add(by_ms, Ordering::SeqCst);
        }
    }
}

fn system_ms() -> u64 {
    // A clock before 1970 counts as 1970.
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

/// Formats milliseconds since the Unix epoch as RFC 3339, in UTC and to the second.
pub fn rfc3339(at_ms: u64) -> String {
    // RFC 3339 has no years after 9999.
    const LAST_MS: u64 = 253_402_300_799_999;
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(at_ms.min(LAST_MS))).to_string()
}

/// Period of a condition that is reported to operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// It has lasted since this time, in milliseconds since the Unix epoch.
    Since(u64),
    /// It has ended, and lasted until this time.
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
