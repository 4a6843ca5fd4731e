//! Whose failure is it? A model that fails for one request may be well; one that fails for several different requests, with
//! no answer in between, is unavailable.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use moka::sync::Cache;

use crate::key::Key;

/// Spaces remembered at once.
const MAX_SPACES: u64 = 10_000;

/// How long a space is remembered without a call.
const REMEMBERED_FOR: Duration = Duration::from_mins(10);

/// Failures of each space since its last answer.
#[derive(Debug)]
pub struct SpaceHealth {
    spaces: Cache<Key, Arc<Space>>,
}

#[derive(Debug, Default)]
struct Space {
    /// True if there is any failure; read for each answer, which the lock is not.
    has_failed: AtomicBool,
    /// The different requests that failed, up to the number that counts.
    requests: Mutex<Vec<u64>>,
}

impl Space {
    fn requests(&self) -> MutexGuard<'_, Vec<u64>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for SpaceHealth {
    fn default() -> Self {
        Self { spaces: Cache::builder().max_capacity(MAX_SPACES).time_to_idle(REMEMBERED_FOR).build() }
    }
}

impl SpaceHealth {
    /// A request of this space failed by itself. Returns how many different ones did since the last answer, at most
    /// `enough`.
    pub(super) fn failed(&self, space: Key, request: u64, enough: u32) -> u32 {
        let space = self.spaces.get_with(space, Arc::default);
        space.has_failed.store(true, Ordering::Release);
        let mut requests = space.requests();
        if requests.len() < enough as usize && !requests.contains(&request) {
            requests.push(request);
        }
        u32::try_from(requests.len()).unwrap_or(u32::MAX)
    }

    /// The service answered for this space, be it with a refusal.
    pub(super) fn answered(&self, space: &Key) {
        if let Some(space) = self.spaces.get(space)
            && space.has_failed.swap(false, Ordering::AcqRel)
        {
            space.requests().clear();
        }
    }

    /// How many different requests of this space failed since its last answer.
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
    fn repetitions_of_one_request_count_once_and_an_answer_ends_the_count() {
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
