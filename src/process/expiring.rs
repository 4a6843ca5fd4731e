//! Concurrent map with a limit on its entries, which expire when they are not used.
//!
//! The map holds small state for each lane or space. Past the limit, the entry that has not been used for the longest
//! time is removed. The library keeps its order lazily: it notes each read and write in a queue, and applies the queue
//! at every 64th of them, or at the first after 300 ms. So the number of entries may exceed the limit for a moment, and
//! a map that each hit reads is better kept by other means. Expiry follows the monotonic clock of the system.

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

/// Bounded map whose entries expire. Values are cloned on each read, so they belong in an `Arc`.
pub struct ExpiringMap<K, V, S = RandomState>(Cache<K, V, S>);

impl<K, V, S> ExpiringMap<K, V, S>
where
    K: Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Default + Send + Sync + 'static,
{
    /// Creates a map of at most `max_entries`, each of which expires when it has not been used for `idle`.
    pub fn new(max_entries: u64, idle: Duration) -> Self {
        // The library's other policy may refuse a new entry in favour of frequent ones, but new state must be kept.
        let builder = Cache::builder().max_capacity(max_entries).eviction_policy(EvictionPolicy::lru());
        Self(builder.time_to_idle(idle).build_with_hasher(S::default()))
    }

    /// Returns the value of a key.
    pub fn get(&self, key: &K) -> Option<V> {
        self.0.get(key)
    }

    /// Returns all keys with their values, in no order.
    pub fn entries(&self) -> impl Iterator<Item = (K, V)> + '_
    where
        K: Clone,
    {
        self.0.iter().map(|(key, value)| ((*key).clone(), value))
    }

    /// Returns the value of a key; inserts a new one if there is none. Concurrent callers get the same value.
    pub fn get_or_insert_with(&self, key: K, new: impl FnOnce() -> V) -> V {
        self.0.get_with(key, new)
    }
}

impl<K, V, S> fmt::Debug for ExpiringMap<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExpiringMap").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(map: &ExpiringMap<u64, u64>) -> u64 {
        map.0.run_pending_tasks();
        map.0.entry_count()
    }

    #[test]
    fn the_least_recently_used_entry_is_evicted_first() {
        let map = ExpiringMap::new(100, Duration::from_hours(1));
        for key in 0..100 {
            map.get_or_insert_with(key, || key);
        }
        assert_eq!((count(&map), map.get(&0)), (100, Some(0)));
        map.get_or_insert_with(100, || 100);
        assert_eq!((count(&map), map.get(&0), map.get(&1), map.get(&100)), (100, Some(0), None, Some(100)));
    }

    #[test]
    fn an_unused_entry_expires() {
        let map = ExpiringMap::<u64, u64>::new(100, Duration::ZERO);
        assert_eq!(map.get_or_insert_with(1, || 1), 1);
        assert_eq!((map.get(&1), count(&map)), (None, 0));
    }
}
