//! How many inputs a call may carry where the upstream's limit is lower than the configured one.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::key::Key;

/// Lanes remembered at once; beyond it all are forgotten, which costs a few refusals.
const MAX_LANES: usize = 1_024;

/// How long a limit is believed. Servers are replaced, and a wrong guess must not last.
const BELIEVED_FOR: Duration = Duration::from_mins(10);

/// What refusals have taught, by lane.
#[derive(Debug, Default)]
pub(super) struct LearnedLimits(Mutex<HashMap<Key, (usize, Instant)>>);

impl LearnedLimits {
    /// Most inputs for a call on this lane, as far as learned.
    pub(super) fn of(&self, lane: &Key) -> usize {
        let known = self.lock().get(lane).copied();
        known.filter(|(_, until)| Instant::now() < *until).map_or(usize::MAX, |(max_inputs, _)| max_inputs)
    }

    /// Notes that more than `max_inputs` were refused on this lane.
    pub(super) fn note(&self, lane: Key, max_inputs: usize) {
        let lower = max_inputs.min(self.of(&lane));
        let mut known = self.lock();
        if known.len() >= MAX_LANES {
            known.clear();
        }
        known.insert(lane, (lower, Instant::now() + BELIEVED_FOR));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, (usize, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyBuilder;

    #[tokio::test(start_paused = true)]
    async fn the_lowest_limit_counts_until_it_is_old() {
        let (learned, lane) = (LearnedLimits::default(), KeyBuilder::new(None).finish());
        assert_eq!(learned.of(&lane), usize::MAX);
        learned.note(lane, 10);
        learned.note(lane, 20);
        assert_eq!(learned.of(&lane), 10);
        tokio::time::advance(BELIEVED_FOR).await;
        assert_eq!(learned.of(&lane), usize::MAX);
    }
}
