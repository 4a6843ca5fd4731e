//! Single-flight: one fetch per key. The first request that claims a missing key leads a flight; later ones join it.
//!
//! All keys that one request leads share one flight object, so a request of 2048 misses costs one allocation and one
//! wake-up. A lead that is dropped releases its waiters, so no flag can be left behind.

use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;

use crate::key::{Key, KeyMap, Spread};
use crate::upstream::Submission;

// Requests with different keys rarely wait for the same lock.
const SHARDS: usize = 64;

/// Table of the fetches in flight. `V` is the result of a fetch.
pub struct SingleFlight<V> {
    shards: Vec<Mutex<KeyMap<FlightWaiter<V>>>>,
    completions: AtomicU64,
}

/// Outcome of a flight for one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completion<V> {
    /// The result.
    Done(V),
    /// The lead was dropped without a result.
    Abandoned,
    /// The fetch exceeds its time limit and continues.
    Late,
}

struct Flight<V> {
    completions: Mutex<Vec<Option<Completion<V>>>>,
    /// Wakes the waiters of every key of the flight.
    completed: Notify,
    is_late: AtomicBool,
    /// Submission whose calls yield to those of interactive requests.
    bulk: OnceLock<Submission>,
}

/// Handle to wait for one key's result. Cheap to clone.
pub struct FlightWaiter<V> {
    flight: Arc<Flight<V>>,
    place: usize,
    /// True if the flight was already late when this handle was made.
    was_late: bool,
}

/// Handle of the leader, which must complete every key of one flight.
pub struct Leader<V: Clone> {
    single_flight: Arc<SingleFlight<V>>,
    flight: Arc<Flight<V>>,
    keys: Vec<Key>,
}

/// Result of [`SingleFlight::claim`] for a list of keys.
pub struct Claims<V: Clone> {
    /// For each key, the handle to wait on.
    pub waiters: Vec<FlightWaiter<V>>,
    /// Places in the list of the keys that the claimer leads, in the order of the lead's keys.
    pub led: Vec<usize>,
    /// The leader's handle for these keys.
    pub lead: Option<Leader<V>>,
}

impl<V> Clone for FlightWaiter<V> {
    fn clone(&self) -> Self {
        // A request that joins a late flight waits for its results and is not released at once.
        let was_late = self.flight.is_late.load(Ordering::Relaxed);
        Self { flight: Arc::clone(&self.flight), place: self.place, was_late }
    }
}

impl<V: Clone> SingleFlight<V> {
    /// Returns an empty table.
    pub fn new() -> Arc<Self> {
        let spread = Spread::default();
        let shard = |_| Mutex::new(KeyMap::with_hasher(spread));
        Arc::new(Self { shards: (0..SHARDS).map(shard).collect(), completions: AtomicU64::new(0) })
    }

    /// Joins the flights that are under way for `keys`, which must be distinct, and starts one flight for the rest.
    pub fn claim(self: &Arc<Self>, keys: &[Key]) -> Claims<V> {
        let flight = Arc::new(Flight {
            completions: Mutex::new(Vec::new()),
            completed: Notify::new(),
            is_late: AtomicBool::new(false),
            bulk: OnceLock::new(),
        });
        let (mut waiters, mut led, mut led_keys) = (Vec::with_capacity(keys.len()), Vec::new(), Vec::new());
        for (place, key) in keys.iter().enumerate() {
            // Only one shard is locked at a time, so the order of keys in two claims cannot cause a deadlock.
            match lock(self.shard(key)).entry(*key) {
                Entry::Occupied(under_way) => waiters.push(under_way.get().clone()),
                Entry::Vacant(free) => {
                    let join = FlightWaiter { flight: Arc::clone(&flight), place: led.len(), was_late: false };
                    // The shard lock is still held, so the slot exists before another request can join.
                    lock(&flight.completions).push(None);
                    waiters.push(free.insert(join).clone());
                    led.push(place);
                    led_keys.push(*key);
                }
            }
        }
        let lead = (!led.is_empty()).then(|| Leader { single_flight: Arc::clone(self), flight, keys: led_keys });
        Claims { waiters, led, lead }
    }

    /// Returns a counter that rises before a completed key leaves the table. While it is unchanged, no key has left. A
    /// key that was not stored then is either still in the table or was not fetched meanwhile.
    pub fn completions(&self) -> u64 {
        self.completions.load(Ordering::Acquire)
    }

    /// Notes that a vector was fetched outside this table and stored, which also invalidates earlier look-ups.
    pub fn note_completion(&self) {
        self.completions.fetch_add(1, Ordering::Release);
    }

    /// Returns the number of keys that are being fetched.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Returns true if nothing is being fetched.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, key: &Key) -> &Mutex<KeyMap<FlightWaiter<V>>> {
        &self.shards[key.shard() % SHARDS]
    }
}

impl<V: Clone> FlightWaiter<V> {
    /// Returns the outcome for the key, if there is one yet.
    pub fn try_completion(&self) -> Option<Completion<V>> {
        let completion = lock(&self.flight.completions)[self.place].clone();
        completion.or_else(|| self.has_become_late().then_some(Completion::Late))
    }

    fn has_become_late(&self) -> bool {
        !self.was_late && self.flight.is_late.load(Ordering::Relaxed)
    }

    /// Returns the submission of the fetch if its calls yield to those of interactive requests.
    pub fn bulk(&self) -> Option<Submission> {
        self.flight.bulk.get().copied()
    }

    /// Waits for the outcome for the key.
    pub async fn completion(&self) -> Completion<V> {
        loop {
            // `notify_waiters` reaches only futures that exist, so this one is created before the check.
            let completed = self.flight.completed.notified();
            if let Some(completion) = self.try_completion() {
                return completion;
            }
            completed.await;
        }
    }

    /// Returns true if every key that the same request leads has an outcome, or the flight is late.
    pub fn is_whole_flight_complete(&self) -> bool {
        self.has_become_late() || lock(&self.flight.completions).iter().all(Option::is_some)
    }
}

impl<V: Clone> Leader<V> {
    /// Returns the keys to complete, in the order they were claimed.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Completes some keys, given by their places: the waiters get the results, then the keys leave the table.
    pub fn complete(&self, results: impl IntoIterator<Item = (usize, V)>) {
        let mut places = Vec::new();
        let mut completions = lock(&self.flight.completions);
        for (place, value) in results {
            completions[place] = Some(Completion::Done(value));
            places.push(place);
        }
        // The waiters read their results under this lock, so it is released before they wake up.
        drop(completions);
        self.flight.completed.notify_waiters();
        // The count rises before the keys leave, so a claim that misses a key also sees the new count.
        self.single_flight.completions.fetch_add(1, Ordering::Release);
        for place in places {
            self.leave(place);
        }
    }

    /// Notes the submission that fetches the keys, because its calls yield to those of interactive requests.
    pub fn note_bulk(&self, submission: Submission) {
        // A fetch with leases has several submissions. The first one has the most keys.
        let _ = self.flight.bulk.set(submission);
    }

    /// Releases the present waiters because the rest of the flight exceeds its time limit. Its results still arrive,
    /// for waiters that join later.
    pub fn note_late(&self) {
        self.flight.is_late.store(true, Ordering::Relaxed);
        self.flight.completed.notify_waiters();
    }

    fn leave(&self, place: usize) {
        let key = self.keys[place];
        lock(self.single_flight.shard(&key)).remove(&key);
    }
}

impl<V: Clone> Drop for Leader<V> {
    fn drop(&mut self) {
        let mut completions = lock(&self.flight.completions);
        let open: Vec<usize> = (0..completions.len()).filter(|place| completions[*place].is_none()).collect();
        // Results that were delivered stay, and only the open keys are abandoned.
        for place in &open {
            completions[*place] = Some(Completion::Abandoned);
        }
        drop(completions);
        self.flight.completed.notify_waiters();
        for place in open {
            self.leave(place);
        }
    }
}

/// Locks a mutex, also after a panic of its holder: each change is one assignment, so the tables are never
/// half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::key::{KeyBuilder, Tag};

    fn key(n: u8) -> Key {
        KeyBuilder::new(None).part(Tag::Text, &[n]).finish()
    }

    #[tokio::test]
    async fn the_first_claim_leads_and_later_ones_wait() {
        let single_flight = SingleFlight::new();
        let first = single_flight.claim(&[key(1), key(2)]);
        let second = single_flight.claim(&[key(2), key(3)]);
        assert_eq!(first.led, [0, 1]);
        assert_eq!(second.led, [1], "only the key that nobody fetches");
        first.lead.expect("it leads").complete([(0, "one"), (1, "two")]);
        assert_eq!(second.waiters[0].completion().await, Completion::Done("two"));
        assert_eq!(first.waiters[0].completion().await, Completion::Done("one"));
    }

    #[tokio::test]
    async fn a_completed_key_can_be_claimed_again() {
        let single_flight = SingleFlight::new();
        let first = single_flight.claim(&[key(1)]);
        first.lead.expect("it leads").complete([(0, ())]);
        assert!(single_flight.is_empty());
        assert_eq!(single_flight.claim(&[key(1)]).led, [0]);
    }

    #[tokio::test]
    async fn a_completion_is_visible_to_the_next_claim() {
        let single_flight = SingleFlight::new();
        let first = single_flight.claim(&[key(1)]);
        let before = single_flight.completions();
        assert!(single_flight.claim(&[key(1)]).lead.is_none());
        assert_eq!(single_flight.completions(), before, "nothing has left");
        first.lead.expect("it leads").complete([(0, ())]);
        assert!(single_flight.claim(&[key(1)]).lead.is_some());
        assert_ne!(single_flight.completions(), before);
    }

    #[tokio::test]
    async fn a_dropped_leader_releases_its_waiters_and_its_keys() {
        let single_flight = SingleFlight::<u8>::new();
        let first = single_flight.claim(&[key(1), key(2)]);
        let joined = single_flight.claim(&[key(1), key(2)]);
        let lead = first.lead.expect("it leads");
        lead.complete([(1, 7)]);
        drop(lead);
        assert_eq!(joined.waiters[0].completion().await, Completion::Abandoned);
        assert_eq!(joined.waiters[1].completion().await, Completion::Done(7), "a completed key stays completed");
        assert!(single_flight.is_empty());
    }

    #[tokio::test]
    async fn a_waiter_is_woken_on_completion() {
        let single_flight = SingleFlight::new();
        let first = single_flight.claim(&[key(1)]);
        let join = first.waiters[0].clone();
        let waiter = async move { join.completion().await };
        let leader = async move { first.lead.expect("it leads").complete([(0, 5)]) };
        let (completion, ()) = tokio::join!(waiter, leader);
        assert_eq!(completion, Completion::Done(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_fetch_wakes_its_current_waiters_but_not_later_ones() {
        let single_flight = SingleFlight::<u8>::new();
        let first = single_flight.claim(&[key(1), key(2)]);
        let [join, other] = [0, 1].map(|place| first.waiters[place].clone());
        let lead = first.lead.expect("it leads");
        lead.complete([(0, 5)]);
        assert!(!other.is_whole_flight_complete(), "one key is not complete");
        let waiter = async { timeout(Duration::from_secs(1), other.completion()).await };
        let (completion, ()) = tokio::join!(waiter, async { lead.note_late() });
        assert_eq!(completion, Ok(Completion::Late));
        assert!(other.is_whole_flight_complete());
        assert_eq!(join.completion().await, Completion::Done(5));
        let later = single_flight.claim(&[key(2)]);
        assert_eq!(later.waiters[0].try_completion(), None, "it waits for the later results");
        lead.complete([(1, 7)]);
        assert_eq!(later.waiters[0].completion().await, Completion::Done(7));
    }
}
