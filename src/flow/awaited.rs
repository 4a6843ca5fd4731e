//! Keys that other replicas fetch, and when to look for their results.
//!
//! The keys that one fetch of another replica leases usually end together. So one look asks for one key of each such
//! fetch, and for the rest only when that key has changed. The pauses follow the usual time of a call, and grow with the
//! number of fetches that the process waits for. See `docs/design/redis.md` for the arithmetic.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::cache::{ForeignLease, LeasedFetch};

/// Bounds of the pause between two looks.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Number of looks in the time of one call. On average a result is found a sixteenth of a call after it is stored.
const LOOKS_PER_CALL: u32 = 8;
/// Minimum of the pause for each fetch that the process waits for. So a process asks for about 2,000 keys per second at
/// most.
const PAUSE_PER_FETCH: Duration = Duration::from_micros(500);

/// Keys that other replicas fetch. `T` is a key with its place.
#[derive(Debug)]
pub(super) struct AwaitedFetches<T> {
    fetches: BTreeMap<AwaitedId, AwaitedFetch<T>>,
    /// Number of fetches that the whole process waits for.
    total: Arc<AtomicUsize>,
    /// The part of it that belongs to this value.
    counted: usize,
    unnamed: usize,
}

/// A fetch of another replica, or a key whose lease does not name its fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum AwaitedId {
    Fetch(LeasedFetch),
    Unnamed(usize),
}

#[derive(Debug)]
struct AwaitedFetch<T> {
    call_time: Option<Duration>,
    keys: VecDeque<T>,
    /// True while one of its keys is being asked for.
    is_asked: bool,
}

impl<T> AwaitedFetches<T> {
    /// Returns no keys. `total` counts the fetches that all values of the process wait for.
    pub(super) fn new(total: Arc<AtomicUsize>) -> Self {
        Self { fetches: BTreeMap::new(), total, counted: 0, unnamed: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.fetches.is_empty()
    }

    /// Adds keys that were asked for and are still leased by others. Returns the other keys of each fetch whose asked
    /// key has changed, which must be asked for now.
    pub(super) fn note(&mut self, leased: Vec<(T, ForeignLease)>) -> Vec<T> {
        for (key, lease) in leased {
            let id = lease.fetch.map_or_else(|| self.next_unnamed(), AwaitedId::Fetch);
            let fetch = self.fetches.entry(id).or_insert_with(|| AwaitedFetch {
                call_time: None,
                keys: VecDeque::new(),
                is_asked: false,
            });
            fetch.call_time = lease.call_time;
            fetch.is_asked = false;
            // Another key is asked for next time, since a large fetch ends in parts.
            fetch.keys.push_back(key);
        }
        let changed: Vec<AwaitedId> =
            self.fetches.iter().filter(|(_, fetch)| fetch.is_asked).map(|(id, _)| *id).collect();
        let keys = changed.iter().filter_map(|id| self.fetches.remove(id)).flat_map(|fetch| fetch.keys).collect();
        self.count();
        keys
    }

    /// Returns one key of each fetch, to be asked for.
    pub(super) fn asked(&mut self) -> Vec<T> {
        let ask = |fetch: &mut AwaitedFetch<T>| {
            fetch.is_asked = true;
            fetch.keys.pop_front()
        };
        self.fetches.values_mut().filter_map(ask).collect()
    }

    /// Stops waiting, and returns all keys.
    pub(super) fn give_up(&mut self) -> Vec<T> {
        let keys = std::mem::take(&mut self.fetches).into_values().flat_map(|fetch| fetch.keys).collect();
        self.count();
        keys
    }

    /// Returns the longest usual call time of the holders; `None` if that of one is unknown.
    pub(super) fn call_time(&self) -> Option<Duration> {
        // `None` is the smallest, so it must be found before the largest is taken.
        let times: Option<Vec<Duration>> = self.fetches.values().map(|fetch| fetch.call_time).collect();
        times?.into_iter().max()
    }

    /// Returns the pause before the next look, after `waited` since the first one. `jitter` is between zero and one.
    /// Replicas that wait for the same fetch thus do not look at the same moment.
    pub(super) fn pause(&self, waited: Duration, jitter: f64) -> Duration {
        let quickest = self.fetches.values().filter_map(|fetch| fetch.call_time).min().unwrap_or_default();
        let by_call = (quickest.max(waited) / LOOKS_PER_CALL).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        let total = u32::try_from(self.total.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        by_call.max(PAUSE_PER_FETCH.saturating_mul(total)).mul_f64(0.75 + jitter / 2.0)
    }

    fn next_unnamed(&mut self) -> AwaitedId {
        self.unnamed += 1;
        AwaitedId::Unnamed(self.unnamed)
    }

    fn count(&mut self) {
        let now = self.fetches.len();
        self.total.fetch_add(now, Ordering::Relaxed);
        self.total.fetch_sub(self.counted, Ordering::Relaxed);
        self.counted = now;
    }
}

impl<T> Drop for AwaitedFetches<T> {
    fn drop(&mut self) {
        self.total.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[path = "awaited_tests.rs"]
mod tests;
