//! Forgotten inputs: purges of single keys.
//!
//! Each forgotten key has a count of its own, as a model has. A record carries the count of its key beside that of its
//! model, and any larger count invalidates it. Keys are many, so a count ends: it is also the time up to which records
//! from before may live, and afterwards it is dropped. Both counts are compared separately, so a dropped count never
//! weakens a later purge of a model.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::key::Key;

/// Largest count accepted from other processes. Each purge adds one, so a larger count is an error or a forgery, and
/// would leave no room for later purges.
pub const MAX_COUNT: u64 = 1 << 48;

/// Limit on keys that one process adds. Replicas read all counts each second, so there must not be many.
pub const MAX_FORGOTTEN: usize = 5_000;

/// Reason for refusing more of them.
pub const TOO_MANY_FORGOTTEN: &str = "too_many_forgotten";

/// Counts of forgotten keys. Each is also a time in milliseconds since the Unix epoch, after which it is dropped.
pub type ForgottenKeys = BTreeMap<Key, u64>;

/// Purge counts under which a record was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PurgeStamp {
    /// Sum of the counts of everything and of its models.
    pub models: u64,
    /// Count of its key, or 0 if the key was never forgotten.
    pub input: u64,
}

impl PurgeStamp {
    /// Returns true if a purge that `self` does not know covers the record.
    pub const fn is_behind(self, now: Self) -> bool {
        self.models < now.models || self.input < now.input
    }

    /// Returns the counts that matter at this time. The count of a key ends, and every process drops it then.
    #[must_use]
    pub const fn at(self, now_ms: u64) -> Self {
        Self { input: if self.input > now_ms { self.input } else { 0 }, ..self }
    }
}

impl From<u64> for PurgeStamp {
    fn from(models: u64) -> Self {
        Self { models, input: 0 }
    }
}

/// Counts of the forgotten keys of this process.
#[derive(Debug, Default)]
pub struct ForgottenRegistry {
    known: RwLock<ForgottenKeys>,
    /// Counts that are about to be learned.
    expected: Mutex<ForgottenKeys>,
}

impl ForgottenRegistry {
    /// Returns the count of a key.
    pub fn of(&self, key: &Key) -> u64 {
        self.read().get(key).copied().unwrap_or(0)
    }

    /// Returns true if these keys may be added.
    pub fn has_room(&self, keys: &[Key]) -> bool {
        let known = self.read();
        known.len() + keys.iter().filter(|key| !known.contains_key(*key)).count() <= MAX_FORGOTTEN
    }

    /// Counts a forget of each key. Records from before live until `until_ms` at most.
    pub fn raise(&self, keys: &[Key], until_ms: u64) {
        let mut known = self.write();
        for key in keys {
            let count = known.entry(*key).or_default();
            // Half of the range is left for counts that only grow by one.
            *count = until_ms.min(MAX_COUNT / 2).max(*count + 1);
        }
    }

    /// Drops the counts that are over. All records from before have expired by then.
    pub fn expire(&self, now_ms: u64) {
        let is_kept = |_: &Key, count: &mut u64| *count > now_ms;
        self.write().retain(is_kept);
        self.lock_expected().retain(is_kept);
    }

    /// Returns the keys with lower counts here than in `elsewhere`: the missed forgets.
    pub fn missed(&self, elsewhere: &ForgottenKeys) -> Vec<Key> {
        let known = self.read();
        let is_behind = |(key, count): &(&Key, &u64)| known.get(*key).copied().unwrap_or(0) < **count;
        believed(elsewhere).filter(is_behind).map(|(key, _)| *key).collect()
    }

    /// Merges counts from elsewhere by taking the larger value. The limit on keys does not apply to them, because a
    /// forget must not be lost.
    pub fn learn(&self, elsewhere: &ForgottenKeys) {
        raise_to(&mut self.write(), elsewhere);
    }

    /// Adds these counts to the state to be saved, before they are applied.
    pub fn expect(&self, elsewhere: &ForgottenKeys) {
        raise_to(&mut self.lock_expected(), elsewhere);
    }

    /// Returns all counts.
    pub fn all(&self) -> ForgottenKeys {
        self.read().clone()
    }

    /// Returns the counts to save.
    pub fn to_save(&self) -> ForgottenKeys {
        let mut all = self.all();
        raise_to(&mut all, &self.lock_expected());
        all
    }

    fn read(&self) -> RwLockReadGuard<'_, ForgottenKeys> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, ForgottenKeys> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_expected(&self) -> MutexGuard<'_, ForgottenKeys> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn raise_to(counts: &mut ForgottenKeys, others: &ForgottenKeys) {
    for (key, count) in believed(others) {
        let known = counts.entry(*key).or_default();
        *known = (*known).max(*count);
    }
}

fn believed(counts: &ForgottenKeys) -> impl Iterator<Item = (&Key, &u64)> {
    counts.iter().filter(|(_, count)| **count <= MAX_COUNT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> Key {
        Key::from_bytes([n; 32])
    }

    #[test]
    fn a_forget_raises_the_count_of_its_own_key_only() {
        let forgotten = ForgottenRegistry::default();
        forgotten.raise(&[key(1)], 100);
        assert_eq!((forgotten.of(&key(1)), forgotten.of(&key(2))), (100, 0));
        forgotten.raise(&[key(1)], 50);
        assert_eq!(forgotten.of(&key(1)), 101, "a later forget always has a larger count");
        forgotten.raise(&[key(2)], u64::MAX);
        forgotten.raise(&[key(2)], u64::MAX);
        assert!(forgotten.of(&key(2)) <= MAX_COUNT);
    }

    #[test]
    fn counts_are_dropped_once_earlier_records_have_expired() {
        let forgotten = ForgottenRegistry::default();
        forgotten.raise(&[key(1)], 100);
        forgotten.expect(&ForgottenKeys::from([(key(2), 100)]));
        forgotten.expire(99);
        assert_eq!(forgotten.to_save().len(), 2);
        forgotten.expire(100);
        assert_eq!(forgotten.to_save(), ForgottenKeys::new());
    }

    #[test]
    fn forgets_of_other_replicas_are_applied_once() {
        let forgotten = ForgottenRegistry::default();
        let elsewhere = ForgottenKeys::from([(key(1), 7), (key(2), u64::MAX)]);
        assert_eq!(forgotten.missed(&elsewhere), [key(1)], "a forged count is ignored");
        forgotten.learn(&elsewhere);
        assert_eq!((forgotten.missed(&elsewhere), forgotten.all().len()), (vec![], 1));
    }

    #[test]
    fn one_process_adds_a_bounded_number_of_keys() {
        let forgotten = ForgottenRegistry::default();
        let many: Vec<Key> =
            (0..MAX_FORGOTTEN as u64).map(|n| key(0).extend(crate::key::Tag::Text, &n.to_le_bytes())).collect();
        assert!(forgotten.has_room(&many));
        forgotten.raise(&many, 10);
        assert!(forgotten.has_room(&many), "known keys need no room");
        assert!(!forgotten.has_room(&[key(1)]));
    }

    #[test]
    fn either_count_invalidates_a_record() {
        let now = PurgeStamp { models: 2, input: 5 };
        assert!(!now.is_behind(now));
        assert!(PurgeStamp { models: 1, input: 9 }.is_behind(now));
        assert!(PurgeStamp { models: 9, input: 4 }.is_behind(now));
    }
}
