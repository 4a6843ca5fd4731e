//! Rate-limited log lines about damaged records: the first at once, then at most one a minute. Damage that is not
//! replaced, such as in a Redis that is full, recurs with each look-up.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::cache::Tier;
use crate::cache::at_rest::Damaged;

/// Least time between two lines.
const QUIET_MS: u64 = 60_000;

/// Count of damaged records.
#[derive(Debug, Default)]
pub(super) struct Damage {
    /// Records since the last line.
    untold: AtomicU64,
    /// Time from which the next line may be logged.
    quiet_until_ms: AtomicU64,
}

impl Damage {
    /// Counts and logs a damaged record. Records of another program version are not damaged, so they are ignored.
    pub(super) fn tell(&self, tier: Tier, damage: Damaged, now_ms: u64) {
        if matches!(damage, Damaged::UnknownVersion(_)) {
            return;
        }
        if let Some(met) = self.meet(now_ms) {
            tracing::warn!(tier = tier.label(), cause = %damage, met, "a stored record is damaged; it counts as a miss");
        }
    }

    /// Returns the number of damaged records since the last line, if the next line is due.
    fn meet(&self, now_ms: u64) -> Option<u64> {
        self.untold.fetch_add(1, Ordering::Relaxed);
        let due = |quiet_until_ms| (now_ms >= quiet_until_ms).then_some(now_ms.saturating_add(QUIET_MS));
        // Of several concurrent callers, only the one that moves the time logs a line.
        let is_due = self.quiet_until_ms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, due).is_ok();
        is_due.then(|| self.untold.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_logged_at_once_and_then_once_a_minute_with_a_count() {
        let damage = Damage::default();
        let met: Vec<_> = [7, 8, 9, QUIET_MS + 6, QUIET_MS + 7, QUIET_MS + 8].map(|at| damage.meet(at)).into();
        assert_eq!(met, [Some(1), None, None, None, Some(4), None]);
    }
}
