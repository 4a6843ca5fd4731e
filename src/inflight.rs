//! One fetch per key. Who claims a missing key first leads a flight; who claims it meanwhile joins.
//!
//! All keys that one request leads share one flight object, so that a request of 2048 misses costs one allocation
//! and one wake-up. A lead that vanishes releases its waiters: there is no flag to forget.

use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::key::{Key, KeyMap, Spread};

const SHARDS: usize = 64;

/// The table of fetches in progress. `V` is what lands.
pub struct Flights<V> {
    shards: Vec<Mutex<KeyMap<Join<V>>>>,
    landings: AtomicU64,
}

/// What came of a flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Landing<V> {
    /// The result.
    Landed(V),
    /// The lead vanished without one.
    Abandoned,
    /// It takes longer than is allowed, and goes on.
    Late,
}

struct Flight<V> {
    landings: Mutex<Vec<Option<Landing<V>>>>,
    landed: Notify,
    is_late: AtomicBool,
}

/// A place to wait for one key's result. Cheap to clone.
pub struct Join<V> {
    flight: Arc<Flight<V>>,
    place: usize,
    /// It was late already when this place to wait was taken.
    was_late: bool,
}

/// The duty to land every key of one flight.
pub struct Lead<V: Clone> {
    flights: Arc<Flights<V>>,
    flight: Arc<Flight<V>>,
    keys: Vec<Key>,
}

/// What [`Flights::claim`] gave for a list of keys.
pub struct Claims<V: Clone> {
    /// Where to wait, for each key.
    pub joins: Vec<Join<V>>,
    /// Which of the keys, by their place in the list, the claimer leads. Same order as the lead's keys.
    pub led: Vec<usize>,
    /// The duty that comes with them.
    pub lead: Option<Lead<V>>,
}

impl<V> Clone for Join<V> {
    fn clone(&self) -> Self {
        let was_late = self.flight.is_late.load(Ordering::Relaxed);
        Self { flight: Arc::clone(&self.flight), place: self.place, was_late }
    }
}

impl<V: Clone> Flights<V> {
    /// An empty table.
    pub fn new() -> Arc<Self> {
        let spread = Spread::default();
        let shard = |_| Mutex::new(KeyMap::with_hasher(spread));
        Arc::new(Self { shards: (0..SHARDS).map(shard).collect(), landings: AtomicU64::new(0) })
    }

    /// Joins the flights that are under way for `keys` (distinct) and starts one for those that are not.
    pub fn claim(self: &Arc<Self>, keys: &[Key]) -> Claims<V> {
        let flight = Arc::new(Flight {
            landings: Mutex::new(Vec::new()),
            landed: Notify::new(),
            is_late: AtomicBool::new(false),
        });
        let (mut joins, mut led, mut led_keys) = (Vec::with_capacity(keys.len()), Vec::new(), Vec::new());
        for (place, key) in keys.iter().enumerate() {
            match lock(self.shard(key)).entry(*key) {
                Entry::Occupied(under_way) => joins.push(under_way.get().clone()),
                Entry::Vacant(free) => {
                    let join = Join { flight: Arc::clone(&flight), place: led.len(), was_late: false };
                    lock(&flight.landings).push(None);
                    joins.push(free.insert(join).clone());
                    led.push(place);
                    led_keys.push(*key);
                }
            }
        }
        let lead = (!led.is_empty()).then(|| Lead { flights: Arc::clone(self), flight, keys: led_keys });
        Claims { joins, led, lead }
    }

    /// Rises before a key that has landed leaves the table. As long as it is what it was, no key has left, and what was
    /// not stored then is either in the table or was not fetched in the meantime.
    pub fn landings(&self) -> u64 {
        self.landings.load(Ordering::Acquire)
    }

    /// Something was fetched beside this table and is stored: that is news, too.
    pub fn note_landing(&self) {
        self.landings.fetch_add(1, Ordering::Release);
    }

    /// How many keys are being fetched.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Returns true if nothing is being fetched.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, key: &Key) -> &Mutex<KeyMap<Join<V>>> {
        &self.shards[key.shard() % SHARDS]
    }
}

impl<V: Clone> Join<V> {
    /// What came of the key, if anything has yet.
    pub fn landed(&self) -> Option<Landing<V>> {
        let landed = lock(&self.flight.landings)[self.place].clone();
        landed.or_else(|| self.has_become_late().then_some(Landing::Late))
    }

    fn has_become_late(&self) -> bool {
        !self.was_late && self.flight.is_late.load(Ordering::Relaxed)
    }

    /// Waits until the key has landed.
    pub async fn landing(&self) -> Landing<V> {
        loop {
            let landed = self.flight.landed.notified();
            if let Some(landing) = self.landed() {
                return landing;
            }
            landed.await;
        }
    }

    /// Returns true if every key has landed that the same request leads, or is late.
    pub fn has_whole_flight_landed(&self) -> bool {
        self.has_become_late() || lock(&self.flight.landings).iter().all(Option::is_some)
    }
}

impl<V: Clone> Lead<V> {
    /// The keys to land, in the order they were claimed.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Lands some keys, given by their places: the waiters get the results, then the keys leave the table.
    pub fn land(&self, results: impl IntoIterator<Item = (usize, V)>) {
        let mut places = Vec::new();
        let mut landings = lock(&self.flight.landings);
        for (place, value) in results {
            landings[place] = Some(Landing::Landed(value));
            places.push(place);
        }
        drop(landings);
        self.flight.landed.notify_waiters();
        self.flights.landings.fetch_add(1, Ordering::Release);
        for place in places {
            self.leave(place);
        }
    }

    /// Lets those go that wait now: what is left takes longer than is allowed. It lands later, for those who come then.
    pub fn note_late(&self) {
        self.flight.is_late.store(true, Ordering::Relaxed);
        self.flight.landed.notify_waiters();
    }

    fn leave(&self, place: usize) {
        let key = self.keys[place];
        lock(self.flights.shard(&key)).remove(&key);
    }
}

impl<V: Clone> Drop for Lead<V> {
    fn drop(&mut self) {
        let mut landings = lock(&self.flight.landings);
        let open: Vec<usize> = (0..landings.len()).filter(|place| landings[*place].is_none()).collect();
        for place in &open {
            landings[*place] = Some(Landing::Abandoned);
        }
        drop(landings);
        self.flight.landed.notify_waiters();
        for place in open {
            self.leave(place);
        }
    }
}

/// A panic while the lock was held cannot leave these tables half-changed: each change is one assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{KeyBuilder, Tag};

    fn key(n: u8) -> Key {
        KeyBuilder::new(None).part(Tag::Text, &[n]).finish()
    }

    #[tokio::test]
    async fn the_first_leads_and_the_others_join() {
        let flights = Flights::new();
        let first = flights.claim(&[key(1), key(2)]);
        let second = flights.claim(&[key(2), key(3)]);
        assert_eq!(first.led, [0, 1]);
        assert_eq!(second.led, [1], "only the key that nobody fetches");
        first.lead.expect("it leads").land([(0, "one"), (1, "two")]);
        assert_eq!(second.joins[0].landing().await, Landing::Landed("two"));
        assert_eq!(first.joins[0].landing().await, Landing::Landed("one"));
    }

    #[tokio::test]
    async fn a_landed_key_is_free_again() {
        let flights = Flights::new();
        let first = flights.claim(&[key(1)]);
        first.lead.expect("it leads").land([(0, ())]);
        assert!(flights.is_empty());
        assert_eq!(flights.claim(&[key(1)]).led, [0]);
    }

    #[tokio::test]
    async fn that_a_key_left_is_seen_by_who_finds_it_free() {
        let flights = Flights::new();
        let first = flights.claim(&[key(1)]);
        let before = flights.landings();
        assert!(flights.claim(&[key(1)]).lead.is_none());
        assert_eq!(flights.landings(), before, "nothing has left");
        first.lead.expect("it leads").land([(0, ())]);
        assert!(flights.claim(&[key(1)]).lead.is_some());
        assert_ne!(flights.landings(), before);
    }

    #[tokio::test]
    async fn a_lead_that_vanishes_releases_its_waiters_and_its_keys() {
        let flights = Flights::<u8>::new();
        let first = flights.claim(&[key(1), key(2)]);
        let joined = flights.claim(&[key(1), key(2)]);
        let lead = first.lead.expect("it leads");
        lead.land([(1, 7)]);
        drop(lead);
        assert_eq!(joined.joins[0].landing().await, Landing::Abandoned);
        assert_eq!(joined.joins[1].landing().await, Landing::Landed(7), "what landed before stays landed");
        assert!(flights.is_empty());
    }

    #[tokio::test]
    async fn who_waits_before_the_landing_is_woken() {
        let flights = Flights::new();
        let first = flights.claim(&[key(1)]);
        let join = first.joins[0].clone();
        let waiter = async move { join.landing().await };
        let lander = async move { first.lead.expect("it leads").land([(0, 5)]) };
        let (landing, ()) = tokio::join!(waiter, lander);
        assert_eq!(landing, Landing::Landed(5));
    }
}
