//! The map, its limits, and the weights of its entries.

use std::cmp::Reverse;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use quick_cache::sync::Cache;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};

use super::mark::Mark;
use crate::key::{Key, SeenKeys, Spread};

/// Memory of an entry in addition to its value: key and links in the slab, a slot in the table, and a share of the
/// ghost keys, which the cache remembers after an eviction. Measured with 40,000 to 140,000 entries: resident memory
/// grows by the counted bytes plus 2 to 3 % for vectors of 1536 components, plus at most 4 % for 512, and minus
/// 1 to 4 % for 64.
pub(super) const ENTRY_OVERHEAD_BYTES: u64 = 128;

/// Assumed weight of an entry, about that of a vector of 1536 components. It determines the number of shards and of
/// ghost keys, and need not be exact.
const USUAL_ENTRY_BYTES: u64 = 4_096;

/// Limit on remembered keys of shed entries. Each takes eight bytes.
const MAX_SHED_KEYS: usize = 1 << 16;

/// Value that can be stored in the map.
pub trait Entry {
    /// Returns the bytes that the value occupies on the heap and inline.
    fn weight_bytes(&self) -> u64;

    /// Returns the mark that decides the order of shedding. Entries without a mark are shed first.
    fn mark(&self) -> Option<&Mark> {
        None
    }
}

/// Size limits of a [`Bounded`] map. The map does not know expiry times: expired values stay until their room is
/// needed.
#[derive(Clone, Copy, Debug)]
pub struct MapBounds {
    /// Limit on the total weight of all entries, including overhead.
    pub max_bytes: u64,
    /// Limit on the number of entries.
    pub max_entries: Option<u64>,
}

/// Map bounded in bytes. Share it by `Arc`.
pub struct Bounded<V> {
    entries: Cache<Key, V, Weigher, Spread, EvictionCounter>,
    /// Number of the latest insertion.
    latest: AtomicU32,
    /// Keys of shed entries. If such a key is inserted again, it is in use.
    shed: SeenKeys,
    evicted: Arc<AtomicU64>,
    /// Actual size of all entries. The weight in the cache may be higher if the number of entries is limited.
    bytes: Arc<AtomicU64>,
    max_bytes: u64,
}

/// Weigher of entries. No entry weighs less than `least`.
#[derive(Clone, Copy)]
struct Weigher {
    least: u64,
}

impl<V: Entry> Weighter<Key, V> for Weigher {
    fn weight(&self, _: &Key, value: &V) -> u64 {
        entry_weight(value, self.least)
    }
}

/// Counter of evicted entries and their bytes.
#[derive(Clone)]
struct EvictionCounter {
    evicted: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
}

/// State of one insertion.
struct Insertion<V> {
    key: Option<Key>,
    /// Evicted values, freed after the shard's lock is released, because freeing may take long.
    evicted: Vec<V>,
}

impl<V> Default for Insertion<V> {
    fn default() -> Self {
        Self { key: None, evicted: Vec::new() }
    }
}

impl<V: Entry> Lifecycle<Key, V> for EvictionCounter {
    type RequestState = Insertion<V>;

    fn on_evict(&self, insertion: &mut Insertion<V>, key: Key, value: V) {
        // Replacing an older value of the same key is not an eviction.
        if insertion.key != Some(key) {
            self.evicted.fetch_add(1, Ordering::Relaxed);
        }
        // A replaced value passes through here too, so its bytes are subtracted once, like those of an eviction.
        self.bytes.fetch_sub(entry_bytes(&value), Ordering::Relaxed);
        insertion.evicted.push(value);
    }
}

impl<V: Entry + Clone + Send + Sync + 'static> Bounded<V> {
    /// Creates an empty map with at most `parts` shards. Each shard has its own lock and an equal share of the bytes. A
    /// value larger than a shard is not stored.
    pub fn new(bounds: MapBounds, parts: usize) -> Self {
        let (evicted, bytes) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let eviction_counter = EvictionCounter { evicted: Arc::clone(&evicted), bytes: Arc::clone(&bytes) };
        let (least, parts) = (least_weight(bounds), parts.min(most_parts(bounds)));
        let expected_entries = usize::try_from(bounds.max_bytes / least.max(USUAL_ENTRY_BYTES)).unwrap_or(usize::MAX);
        let options = OptionsBuilder::new()
            .weight_capacity(bounds.max_bytes)
            .estimated_items_capacity(expected_entries)
            .shards(parts)
            .build()
            .expect("both capacities must be set");
        let entries = Cache::with_options(options, Weigher { least }, Spread::default(), eviction_counter);
        let (latest, shed) = (AtomicU32::new(0), SeenKeys::new(expected_entries.min(MAX_SHED_KEYS)));
        Self { entries, latest, shed, evicted, bytes, max_bytes: bounds.max_bytes }
    }

    /// Returns the value under `key` and marks it as read.
    pub fn get(&self, key: &Key) -> Option<V> {
        let value = self.entries.get(key)?;
        if let Some(mark) = value.mark() {
            mark.read();
        }
        Some(value)
    }

    /// Stores a value, and replaces an older one.
    pub fn insert(&self, key: Key, value: V) {
        if let Some(mark) = value.mark() {
            // A key that was shed or has a value is in use, so the new value starts as read.
            let comes_again = self.shed.has(&key) || self.entries.contains_key(&key);
            // Number 0 marks entries that were read, so a counter that wraps around skips it.
            mark.begin((!comes_again).then(|| self.latest.fetch_add(1, Ordering::Relaxed).wrapping_add(1).max(1)));
        }
        // Added before the insert, because the insert may evict this value at once, which subtracts its bytes.
        self.bytes.fetch_add(entry_bytes(&value), Ordering::Relaxed);
        self.entries.insert_with_lifecycle(key, value, &mut Insertion { key: Some(key), evicted: Vec::new() });
    }

    /// Removes one entry.
    pub fn remove(&self, key: &Key) {
        self.note_removed(self.entries.remove(key).as_ref());
    }

    /// Removes all entries one by one, so no lock is held while the values of a whole shard are freed.
    pub fn clear(&self) {
        for entry in self.entries.drain() {
            self.note_removed(Some(&entry));
        }
    }

    /// Passes every entry to `visit` until it breaks. Entries inserted or removed meanwhile may be missing.
    pub fn each(&self, mut visit: impl FnMut(&Key, &V) -> ControlFlow<()>) -> ControlFlow<()> {
        self.entries.iter().try_for_each(|(key, value)| visit(&key, &value))
    }

    /// Removes the entries for which `matches` returns true, one by one, and returns how many there were.
    pub fn remove_where(&self, matches: impl Fn(&V) -> bool) -> u64 {
        // The value may have been replaced since the iterator read it, so `remove_if` tests it again under the lock.
        let is_taken = |(key, value): &(Key, V)| {
            matches(value) && self.note_removed(self.entries.remove_if(key, &matches).as_ref())
        };
        self.entries.iter().filter(is_taken).count() as u64
    }

    /// Removes entries until about `bytes` are free, and returns the bytes freed. Entries that were never read are
    /// removed first, and of those the newest: a flood of new keys then displaces itself, as it does when the map is
    /// full. If entries that were read must be removed too, the remaining ones count as the oldest unread entries until
    /// they are read again.
    pub fn shed(&self, bytes: u64) -> u64 {
        let (mut freed, mut reaches_read) = (0, false);
        for (unread, key) in self.by_use() {
            if freed >= bytes {
                break;
            }
            let taken = self.entries.remove(&key);
            // Another thread may have removed the entry since the keys were collected.
            if self.note_removed(taken.as_ref()) {
                freed += taken.map_or(0, |(_, value)| entry_bytes(&value));
                self.evicted.fetch_add(1, Ordering::Relaxed);
            }
            self.shed.note(&key);
            reaches_read |= unread.is_none();
        }
        if reaches_read {
            self.entries.iter().filter_map(|(_, value)| value.mark().map(Mark::grow_old)).count();
        }
        freed
    }

    /// Returns all keys, the least useful first. Temporarily takes about 1 % of the memory of the vectors.
    fn by_use(&self) -> Vec<(Option<u32>, Key)> {
        // An entry without a mark counts as the newest unread one.
        let mut keys: Vec<_> =
            self.entries.iter().map(|(key, value)| (value.mark().map_or(Some(u32::MAX), Mark::unread), key)).collect();
        // `None` is less than any number, so the newest unread entries come first and read ones last.
        keys.sort_unstable_by_key(|(unread, _)| Reverse(*unread));
        keys
    }

    /// Subtracts a removed entry from the size. Returns true if there was one.
    fn note_removed(&self, entry: Option<&(Key, V)>) -> bool {
        let bytes = entry.map(|(_, value)| entry_bytes(value));
        self.bytes.fetch_sub(bytes.unwrap_or(0), Ordering::Relaxed);
        bytes.is_some()
    }

    /// Returns true if there is a value under `key`. Does not mark it as read.
    #[cfg(test)]
    pub(super) fn holds(&self, key: &Key) -> bool {
        self.entries.contains_key(key)
    }

    /// Returns the number of entries.
    pub fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Returns true if there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the size of all entries in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Returns the limit on the size in bytes.
    pub const fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// Returns the number of entries evicted because the map was full or had to shed.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }
}

/// Returns the least weight of an entry. The cache has one capacity, so a limit on entries is expressed as a weight.
fn least_weight(bounds: MapBounds) -> u64 {
    // The cache rejects entries heavier than its part for used entries, which is 97 % of the whole.
    bounds.max_entries.map_or(0, |most| (bounds.max_bytes / most.max(1)).min(bounds.max_bytes / 100 * 97))
}

/// Returns the largest number of shards. Keys are distributed at random, so a shard needs about a thousand entries to
/// be filled evenly; then a map with a limit on entries holds nearly that many.
fn most_parts(bounds: MapBounds) -> usize {
    bounds.max_entries.map_or(usize::MAX, |most| usize::try_from(most / 1_000).unwrap_or(usize::MAX).max(1))
}

fn entry_weight(value: &impl Entry, least: u64) -> u64 {
    entry_bytes(value).max(least)
}

fn entry_bytes(value: &impl Entry) -> u64 {
    value.weight_bytes() + ENTRY_OVERHEAD_BYTES
}
