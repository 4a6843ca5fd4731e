//! Keys that other replicas fetch, and when to look for their results.
//!
//! The keys that one fetch of another replica leases usually end together. So one look asks for one key of each such
//! fetch, and for the rest only when that key has changed. Requests of one process that wait for the same fetch take
//! turns. The pauses follow the usual time of a call, and grow with the number of fetches that the process waits for.
//! See `docs/design/redis.md` for the arithmetic.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::cache::{ForeignLease, LeasedFetch};

/// Bounds of the pause between two looks.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Number of looks in the time of one call. On average a result is found a sixteenth of a call after it is stored.
const LOOKS_PER_CALL: u32 = 8;
/// Minimum of the pause for each fetch that the process waits for. So a process asks for about 500 keys per second at most.
const PAUSE_PER_FETCH: Duration = Duration::from_millis(2);

/// Fetches of other replicas that this process waits for.
#[derive(Debug, Default)]
pub(super) struct AwaitedTable(Mutex<BTreeMap<LeasedFetch, TableEntry>>);

/// A fetch of another replica in the table of the process.
#[derive(Debug, Default)]
struct TableEntry {
    /// Number of requests that wait for it.
    waiting: usize,
    /// Time of the last question, if it had not ended then.
    asked_at: Option<Instant>,
}

impl AwaitedTable {
    fn len(&self) -> usize {
        self.lock().len()
    }

    fn enter(&self, fetch: LeasedFetch) {
        self.lock().entry(fetch).or_default().waiting += 1;
    }

    fn leave(&self, fetch: LeasedFetch) {
        let mut table = self.lock();
        let Some(entry) = table.get_mut(&fetch) else { return };
        entry.waiting -= 1;
        // The fetch has changed, or a request has stopped to wait. The others ask for themselves next.
        entry.asked_at = None;
        if entry.waiting == 0 {
            table.remove(&fetch);
        }
    }

    /// Returns true if no request of the process has asked since `since`, and notes a question now.
    fn ask(&self, fetch: LeasedFetch, since: Instant) -> bool {
        let mut table = self.lock();
        let Some(entry) = table.get_mut(&fetch) else { return true };
        let is_due = entry.asked_at.is_none_or(|asked_at| asked_at <= since);
        if is_due {
            entry.asked_at = Some(Instant::now());
        }
        is_due
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<LeasedFetch, TableEntry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keys that other replicas fetch. `T` is a key with its place.
#[derive(Debug)]
pub(super) struct AwaitedFetches<T> {
    fetches: BTreeMap<AwaitedId, AwaitedFetch<T>>,
    table: Arc<AwaitedTable>,
    /// Number of keys so far whose leases do not name their fetch.
    unnamed: usize,
    /// The pause before the present look.
    pause: Duration,
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
    /// Returns no keys. `table` has the fetches that the process waits for.
    pub(super) fn new(table: Arc<AwaitedTable>) -> Self {
        Self { fetches: BTreeMap::new(), table, unnamed: 0, pause: Duration::ZERO }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.fetches.is_empty()
    }

    /// Adds keys that were asked for and are still leased by others. Returns the other keys of each fetch whose asked
    /// key has changed, which must be asked for now.
    pub(super) fn note(&mut self, leased: Vec<(T, ForeignLease)>) -> Vec<T> {
        for (key, lease) in leased {
            let id = lease.fetch.map_or_else(|| self.next_unnamed(), AwaitedId::Fetch);
            let fetch = self.fetches.entry(id).or_insert_with(|| {
                if let Some(named) = id.named() {
                    self.table.enter(named);
                }
                AwaitedFetch { call_time: None, keys: VecDeque::new(), is_asked: false }
            });
            fetch.call_time = lease.call_time;
            fetch.is_asked = false;
            // Another key is asked for next time, since a large fetch ends in parts.
            fetch.keys.push_back(key);
        }
        let changed: Vec<AwaitedId> =
            self.fetches.iter().filter(|(_, fetch)| fetch.is_asked).map(|(id, _)| *id).collect();
        changed.into_iter().flat_map(|id| self.end(id)).collect()
    }

    /// Returns one key of each fetch, to be asked for. Leaves out fetches for which another request of the process has
    /// just asked.
    pub(super) fn asked(&mut self) -> Vec<T> {
        let since = Instant::now().checked_sub(self.pause / 2).unwrap_or_else(Instant::now);
        let mut asked = Vec::new();
        for (id, fetch) in &mut self.fetches {
            if id.named().is_none_or(|fetch| self.table.ask(fetch, since)) {
                fetch.is_asked = true;
                asked.extend(fetch.keys.pop_front());
            }
        }
        asked
    }

    /// Stops waiting, and returns all keys.
    pub(super) fn give_up(&mut self) -> Vec<T> {
        let all: Vec<AwaitedId> = self.fetches.keys().copied().collect();
        all.into_iter().flat_map(|id| self.end(id)).collect()
    }

    /// Stops waiting for a fetch, and returns its keys.
    fn end(&mut self, id: AwaitedId) -> VecDeque<T> {
        if let Some(named) = id.named() {
            self.table.leave(named);
        }
        self.fetches.remove(&id).map(|fetch| fetch.keys).unwrap_or_default()
    }

    /// Returns the longest usual call time of the holders; `None` if that of one is unknown.
    pub(super) fn call_time(&self) -> Option<Duration> {
        // `None` is the smallest, so it must be found before the largest is taken.
        let times: Option<Vec<Duration>> = self.fetches.values().map(|fetch| fetch.call_time).collect();
        times?.into_iter().max()
    }

    /// Returns the pause before the next look, after `waited` since the first one. `jitter` is between zero and one.
    /// Replicas that wait for the same fetch thus do not look at the same moment.
    pub(super) fn pause(&mut self, waited: Duration, jitter: f64) -> Duration {
        let quickest = self.fetches.values().filter_map(|fetch| fetch.call_time).min().unwrap_or_default();
        let by_call = (quickest.max(waited) / LOOKS_PER_CALL).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        let unnamed = self.fetches.keys().filter(|id| id.named().is_none()).count();
        let awaited = u32::try_from(self.table.len() + unnamed).unwrap_or(u32::MAX);
        self.pause = by_call.max(PAUSE_PER_FETCH.saturating_mul(awaited));
        self.pause.mul_f64(0.75 + jitter / 2.0)
    }

    fn next_unnamed(&mut self) -> AwaitedId {
        self.unnamed += 1;
        AwaitedId::Unnamed(self.unnamed)
    }
}

impl AwaitedId {
    /// Returns the fetch, if the lease names it.
    const fn named(self) -> Option<LeasedFetch> {
        match self {
            Self::Fetch(fetch) => Some(fetch),
            Self::Unnamed(_) => None,
        }
    }
}

impl<T> Drop for AwaitedFetches<T> {
    fn drop(&mut self) {
        for fetch in self.fetches.keys().filter_map(|id| id.named()) {
            self.table.leave(fetch);
        }
    }
}

#[cfg(test)]
#[path = "awaited_tests.rs"]
mod tests;
