//! Tells failures of one request from failures of a model. A model that fails for one request may be fine. A model that
//! fails for several different requests, with no answer in between, is unavailable.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::key::{Key, Spread};
use crate::process::expiring::ExpiringMap;

/// Maximum number of spaces.
const MAX_SPACES: u64 = 10_000;

/// Time after its last call for which a space is remembered.
const REMEMBERED_FOR: Duration = Duration::from_mins(10);

/// Failures of each space since its last answer.
#[derive(Debug)]
pub struct SpaceHealth {
    spaces: ExpiringMap<Key, Arc<SpaceFailures>, Spread>,
}

#[derive(Debug, Default)]
struct SpaceFailures {
    /// True if there is any failure. Each answer reads this flag instead of taking the lock.
    has_failed: AtomicBool,
    /// The different requests that failed, up to the number that counts.
    requests: Mutex<Vec<u64>>,
}

impl SpaceFailures {
    fn requests(&self) -> MutexGuard<'_, Vec<u64>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for SpaceHealth {
    fn default() -> Self {
        Self { spaces: ExpiringMap::new(MAX_SPACES, REMEMBERED_FOR) }
    }
}

impl SpaceHealth {
    /// Notes that a request of this space failed in a call of its own. Returns the number of different requests that
    /// failed since the last answer, at most `enough`.
    pub(super) fn failed(&self, space: Key, request: u64, enough: u32) -> u32 {
        let space = self.spaces.get_or_insert_with(space, Arc::default);
        let mut requests = space.requests();
        // A number beyond `enough` changes no decision, so the list stays short.
        if requests.len() < enough as usize && !requests.contains(&request) {
            requests.push(request);
        }
        // Set under the lock: an answer in between would clear the flag but not this failure.
        space.has_failed.store(true, Ordering::Release);
        u32::try_from(requests.len()).unwrap_or(u32::MAX)
    }

    /// Notes that the service answered for this space, even if with a refusal.
    pub(super) fn answered(&self, space: &Key) {
        // A plain lookup: an answer of a space without failures creates no entry.
        if let Some(space) = self.spaces.get(space)
            && space.has_failed.swap(false, Ordering::AcqRel)
        {
            space.requests().clear();
        }
    }

    /// Returns the number of different requests of this space that failed since its last answer.
    pub fn failures(&self, space: &Key) -> u32 {
        let failures = self.spaces.get(space).map_or(0, |space| space.requests().len());
        u32::try_from(failures).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{KeyBuilder, Tag};

    #[test]
    fn repeated_failures_of_a_request_count_once_and_an_answer_resets_them() {
        let (health, root) = (SpaceHealth::default(), KeyBuilder::new(None).finish());
        let (sick, well) = (root.extend(Tag::Model, b"sick"), root.extend(Tag::Model, b"well"));
        assert_eq!([1, 1, 2, 2].map(|request| health.failed(sick, request, 3)), [1, 1, 2, 2]);
        assert_eq!((health.failures(&sick), health.failures(&well)), (2, 0));
        assert_eq!([3, 4, 5].map(|request| health.failed(sick, request, 3)), [3, 3, 3], "more than enough is enough");
        health.answered(&well);
        assert_eq!(health.failures(&sick), 3, "the answer of another model says nothing");
        health.answered(&sick);
        assert_eq!(health.failures(&sick), 0);
        assert_eq!(health.failed(sick, 3, 3), 1);
    }
}
