//! A concurrent map from [`Key`] that stays under a bound in bytes. The only file that knows the cache library.

mod mark;

use std::cmp::Reverse;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use quick_cache::sync::Cache;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};

use crate::key::{Key, SeenKeys, Spread};

pub use mark::Mark;

/// What an entry costs beside its value: its place in the slab with key and links, its slot in the table, and its part
/// of the keys that are remembered after they had to go.
/// Measured over 40,000 to 140,000 entries: resident memory grows by what is counted and 2 to 3 % with vectors of 1536
/// components, 4 % at most with 512, and 1 to 4 % less with 64.
const ENTRY_OVERHEAD_BYTES: u64 = 128;

/// What an entry is taken to weigh when it is decided how many parts there are, and how many keys of entries are
/// remembered that had to go: about a vector of 1536 numbers. It need not be right.
const USUAL_ENTRY_BYTES: u64 = 4_096;

/// Most keys of shed entries that are remembered, in eight bytes each.
const MAX_SHED_KEYS: usize = 1 << 16;

/// A value that can be kept.
pub trait Entry {
    /// Bytes it occupies on the heap and inline.
    fn weight_bytes(&self) -> u64;

    /// The mark by which shedding chooses. An entry without one goes first.
    fn mark(&self) -> Option<&Mark> {
        None
    }
}

/// How large a [`Bounded`] may grow. How long a value serves is its owner's matter: what serves no longer stays until
/// its room is needed.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bound on the sum of all entries, overhead included.
    pub max_bytes: u64,
    /// Bound on the number of entries.
    pub max_entries: Option<u64>,
}

/// A byte-bounded map. Cheap handles are made by `Arc`.
pub struct Bounded<V> {
    entries: Cache<Key, V, Scales, Spread, Departures>,
    /// Number of the latest insertion.
    latest: AtomicU32,
    /// Keys that were shed. One that comes again proves that it is in use.
    shed: SeenKeys,
    evicted: Arc<AtomicU64>,
    /// Of all entries, as they are: what is weighed may be more, where their number is bounded.
    bytes: Arc<AtomicU64>,
    max_bytes: u64,
}

/// Weighs entries; none counts for less than `least`.
#[derive(Clone, Copy)]
struct Scales {
    least: u64,
}

impl<V: Entry> Weighter<Key, V> for Scales {
    fn weight(&self, _: &Key, value: &V) -> u64 {
        entry_weight(value, self.least)
    }
}

/// Counts the entries that had to go, and their bytes.
#[derive(Clone)]
struct Departures {
    evicted: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
}

/// What becomes of other values while one is put in.
struct Putting<V> {
    key: Option<Key>,
    /// Kept until the part's lock is let go: to free a value may take long.
    gone: Vec<V>,
}

impl<V> Default for Putting<V> {
    fn default() -> Self {
        Self { key: None, gone: Vec::new() }
    }
}

impl<V: Entry> Lifecycle<Key, V> for Departures {
    type RequestState = Putting<V>;

    fn on_evict(&self, putting: &mut Putting<V>, key: Key, value: V) {
        // An older value of the same key is replaced, which makes no room.
        if putting.key != Some(key) {
            self.evicted.fetch_add(1, Ordering::Relaxed);
        }
        self.bytes.fetch_sub(entry_bytes(&value), Ordering::Relaxed);
        putting.gone.push(value);
    }
}

impl<V: Entry + Clone + Send + Sync + 'static> Bounded<V> {
    /// An empty map of at most so many `parts`, each with its lock and its share of the bytes: a value larger than a
    /// part is not kept.
    pub fn new(bounds: Bounds, parts: usize) -> Self {
        let (evicted, bytes) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let departures = Departures { evicted: Arc::clone(&evicted), bytes: Arc::clone(&bytes) };
        let (least, parts) = (least_weight(bounds), parts.min(most_parts(bounds)));
        let expected_entries = usize::try_from(bounds.max_bytes / least.max(USUAL_ENTRY_BYTES)).unwrap_or(usize::MAX);
        let options = OptionsBuilder::new()
            .weight_capacity(bounds.max_bytes)
            .estimated_items_capacity(expected_entries)
            .shards(parts)
            .build()
            .expect("both capacities must be set");
        let entries = Cache::with_options(options, Scales { least }, Spread::default(), departures);
        let (latest, shed) = (AtomicU32::new(0), SeenKeys::new(expected_entries.min(MAX_SHED_KEYS)));
        Self { entries, latest, shed, evicted, bytes, max_bytes: bounds.max_bytes }
    }

    /// The value under `key`; counts as a use.
    pub fn get(&self, key: &Key) -> Option<V> {
        let value = self.entries.get(key)?;
        if let Some(mark) = value.mark() {
            mark.read();
        }
        Some(value)
    }

    /// Puts a value in, replacing an older one.
    pub fn insert(&self, key: Key, value: V) {
        if let Some(mark) = value.mark() {
            let comes_again = self.shed.has(&key) || self.entries.contains_key(&key);
            mark.begin((!comes_again).then(|| self.latest.fetch_add(1, Ordering::Relaxed).wrapping_add(1).max(1)));
        }
        self.bytes.fetch_add(entry_bytes(&value), Ordering::Relaxed);
        self.entries.insert_with_lifecycle(key, value, &mut Putting { key: Some(key), gone: Vec::new() });
    }

    /// Takes one entry out.
    pub fn remove(&self, key: &Key) {
        self.note_gone(self.entries.remove(key).as_ref());
    }

    /// Takes every entry out. One by one, so that nobody waits for a lock while the values of a whole part are freed.
    pub fn clear(&self) {
        for entry in self.entries.drain() {
            self.note_gone(Some(&entry));
        }
    }

    /// Shows every entry until `visit` breaks off. What is put in or taken out meanwhile may be shown or not.
    pub fn each(&self, mut visit: impl FnMut(&Key, &V) -> ControlFlow<()>) -> ControlFlow<()> {
        self.entries.iter().try_for_each(|(key, value)| visit(&key, &value))
    }

    /// Takes out the entries for which `gone` holds, one by one as well; says how many those were.
    pub fn remove_where(&self, gone: impl Fn(&V) -> bool) -> u64 {
        let is_taken =
            |(key, value): &(Key, V)| gone(value) && self.note_gone(self.entries.remove_if(key, &gone).as_ref());
        self.entries.iter().filter(is_taken).count() as u64
    }

    /// Takes out entries until about `bytes` are free; says how many bytes those held. Entries that were never read go
    /// first, and of those the newest: so a flood of new keys makes room for itself, as it does where the map is full.
    /// Where it comes to entries that were read, those that are left have to be read again to outlast newer ones.
    pub fn shed(&self, bytes: u64) -> u64 {
        let (mut freed, mut reaches_read) = (0, false);
        for (unread, key) in self.by_use() {
            if freed >= bytes {
                break;
            }
            let taken = self.entries.remove(&key);
            if self.note_gone(taken.as_ref()) {
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

    /// All keys, the least useful ones first. Takes about 1 % of the memory of vectors for a moment.
    fn by_use(&self) -> Vec<(Option<u32>, Key)> {
        let mut keys: Vec<_> =
            self.entries.iter().map(|(key, value)| (value.mark().map_or(Some(u32::MAX), Mark::unread), key)).collect();
        keys.sort_unstable_by_key(|(unread, _)| Reverse(*unread));
        keys
    }

    /// Counts what was taken out, if anything was; says whether.
    fn note_gone(&self, entry: Option<&(Key, V)>) -> bool {
        let bytes = entry.map(|(_, value)| entry_bytes(value));
        self.bytes.fetch_sub(bytes.unwrap_or(0), Ordering::Relaxed);
        bytes.is_some()
    }

    /// How many entries there are.
    pub fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of all entries.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The bound on those bytes.
    pub const fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// Entries that had to go because the map was full, or was told to shed.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }
}

/// The map has one capacity. A bound on entries becomes a least weight of each, so that the bytes run out first.
fn least_weight(bounds: Bounds) -> u64 {
    // What is heavier than the part for what is in use, 97 % of the whole, would not be let in at all.
    bounds.max_entries.map_or(0, |most| (bounds.max_bytes / most.max(1)).min(bounds.max_bytes / 100 * 97))
}

/// Keys fall into the parts by chance. With a thousand to each, a map bounded in entries holds nearly all that it may.
fn most_parts(bounds: Bounds) -> usize {
    bounds.max_entries.map_or(usize::MAX, |most| usize::try_from(most / 1_000).unwrap_or(usize::MAX).max(1))
}

fn entry_weight(value: &impl Entry, least: u64) -> u64 {
    entry_bytes(value).max(least)
}

fn entry_bytes(value: &impl Entry) -> u64 {
    value.weight_bytes() + ENTRY_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests;
