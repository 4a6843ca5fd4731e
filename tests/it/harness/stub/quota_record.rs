//! The calls that the stub's rate limits have judged, and the share of the limits that they have used.

use std::time::{Duration, Instant};

use super::quota::{Counted, JudgedCall, Quota, Quotas};

/// All calls to a stub with limits, in order of arrival.
#[derive(Debug)]
pub(crate) struct QuotaRecord {
    quota: Quota,
    /// Start of the first window.
    grid: Instant,
    pub(crate) calls: Vec<JudgedCall>,
}

impl QuotaRecord {
    /// Copies the record of all calls so far.
    pub(super) fn of(quotas: &Quotas) -> Self {
        Self { quota: quotas.quota, grid: quotas.grid, calls: quotas.judged.clone() }
    }

    /// Returns the times of the accepted calls.
    pub(crate) fn accepted(&self) -> Vec<Instant> {
        self.calls.iter().filter(|call| call.is_accepted).map(|call| call.at).collect()
    }

    /// Returns the times of the refused calls.
    pub(crate) fn refused(&self) -> Vec<Instant> {
        self.calls.iter().filter(|call| !call.is_accepted).map(|call| call.at).collect()
    }

    /// Returns the time from the first to the last accepted call.
    pub(crate) fn took(&self) -> Duration {
        let accepted = self.accepted();
        let ends = accepted.first().zip(accepted.last());
        ends.map_or(Duration::ZERO, |(first, last)| last.duration_since(*first))
    }

    /// Returns the used share of the scarcer limit, for calls of one credential and model. `reserve` is the part of
    /// the limit per minute that is left to others once.
    ///
    /// With a bucket, it is the share of what was there at the first call and came until the last one. With windows,
    /// it is the share of the windows before that of the last call.
    pub(crate) fn used(&self, reserve: f64) -> f64 {
        let accepted: Vec<&JudgedCall> = self.calls.iter().filter(|call| call.is_accepted).collect();
        let (Some(first), Some(last)) = (accepted.first(), accepted.last()) else { return 0.0 };
        let (passed, until, parts) = match self.quota.counted {
            Counted::Bucket { .. } => (last.at.duration_since(first.at).as_secs_f64() / 60.0, None, 1.0),
            Counted::Window { length, .. } => {
                let number = |at: Instant| at.duration_since(self.grid).as_nanos() / length.as_nanos();
                let (begin, end) = (number(first.at), number(last.at));
                let windows = u32::try_from(end - begin).expect("a test has few windows");
                (
                    0.0,
                    Some(self.grid + length * u32::try_from(end).expect("a test has few windows")),
                    f64::from(windows),
                )
            }
        };
        let counted = accepted.iter().filter(|call| until.is_none_or(|until| call.at < until));
        let used = counted.fold([0.0, 0.0], |[calls, tokens], call| [calls + 1.0, tokens + call.tokens]);
        let available = |limit: f64| self.quota.counted.capacity(limit) * parts + limit * (passed - reserve);
        (used[0] / available(self.quota.requests)).max(used[1] / available(self.quota.tokens))
    }
}
