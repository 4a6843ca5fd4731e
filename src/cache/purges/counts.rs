//! Purge counts for records that outlive the process or are shared between several processes.
//!
//! Every purge raises one count: that of a model's name, or that of everything. A stored record carries its purge
//! count, the sum of the counts that applied to it. Counts only grow, so a later purge makes the sum larger than the
//! count in the record, and the record is never served again, wherever it is stored. Counts of other processes are
//! merged by taking the larger value.
//!
//! A count is also the time of its latest purge, in milliseconds since the Unix epoch, so that vectors of a job that
//! began before a purge can be told from later ones. Where clocks differ, the count is larger by one than the one
//! before.
//!
//! In addition to the counts there are unsent purges, which the processes that share a tier do not know yet. Counts and
//! unsent purges are saved together, so a process that restarts after an outage knows what it still has to publish.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::Notify;

use super::forgotten::{ForgottenKeys, ForgottenRegistry, MAX_COUNT, PurgeStamp};
use super::job_start::JobStart;
use crate::key::Key;

/// Name under which purges of everything are counted. No model has this name, because model names are never empty.
pub const EVERYTHING: &str = "";

/// Limit on names that this process counts separately. Beyond it, a purge of another name becomes a purge of
/// everything.
pub const MAX_NAMES: usize = 1_000;

/// Purge counts by name of the model.
pub type PurgeCounts = BTreeMap<String, u64>;

/// Unsent purges by name of the field in the shared tier.
pub type UnsentPurges = BTreeMap<String, u64>;

/// Purges of other processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PurgeNews {
    /// Counts of models and of everything.
    pub counts: PurgeCounts,
    /// Counts of forgotten keys.
    pub forgotten: ForgottenKeys,
}

impl From<PurgeCounts> for PurgeNews {
    fn from(counts: PurgeCounts) -> Self {
        Self { counts, forgotten: ForgottenKeys::new() }
    }
}

/// State that must survive a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SavedPurges {
    /// All known purges.
    pub counts: PurgeCounts,
    /// Counts of forgotten keys.
    pub forgotten: ForgottenKeys,
    /// Purges that other processes have not been told of yet.
    pub unsent: UnsentPurges,
}

/// Purge counts and unsent purges of this process.
#[derive(Debug, Default)]
pub struct PurgeRegistry {
    counts: RwLock<PurgeCounts>,
    /// Counts that are about to be learned.
    expected: Mutex<PurgeCounts>,
    unsent: Mutex<UnsentPurges>,
    sent: Notify,
    forgotten: ForgottenRegistry,
}

impl PurgeRegistry {
    /// Returns the counts of forgotten keys.
    pub const fn forgotten(&self) -> &ForgottenRegistry {
        &self.forgotten
    }

    /// Returns the purge counts of a record under `key` with these names.
    pub fn stamp(&self, key: &Key, names: &[&str]) -> PurgeStamp {
        PurgeStamp { models: self.of(names), input: self.forgotten.of(key) }
    }

    /// Merges what is saved or was read elsewhere, by taking the larger values.
    pub fn learn_all(&self, counts: &PurgeCounts, forgotten: &ForgottenKeys) {
        self.learn(counts);
        self.forgotten.learn(forgotten);
    }

    /// Returns the purge count of a record with these names, which may contain duplicates.
    pub fn of(&self, names: &[&str]) -> u64 {
        let counts = self.read();
        let count = |name: &str| counts.get(name).copied().unwrap_or(0);
        // The requested and the answering model often have the same name, which counts once.
        let is_new = |place: usize| !names[..place].contains(&names[place]);
        let named: u64 = (0..names.len()).filter(|place| is_new(*place)).map(|place| count(names[place])).sum();
        count(EVERYTHING) + named
    }

    /// Counts a purge of one model or of everything at this time, and returns the name of the count.
    pub fn raise(&self, model: Option<&str>, now_ms: u64) -> String {
        let mut counts = self.write();
        let name = model.unwrap_or(EVERYTHING);
        // A purge of everything covers the name too, so the limit never loses a purge.
        let name = if counts.contains_key(name) || counts.len() < MAX_NAMES { name } else { EVERYTHING };
        let count = counts.entry(name.to_owned()).or_default();
        *count = purged_at(now_ms, *count);
        name.to_owned()
    }

    /// Returns true if a purge since the start of a job covers the record under `key` with these names.
    pub fn was_purged_since(&self, job: JobStart, key: &Key, names: &[&str]) -> bool {
        let counts = self.read();
        let is_later = |name: &str| counts.get(name).is_some_and(|count| *count >= job.began_ms);
        is_later(EVERYTHING) || names.iter().any(|name| is_later(name)) || self.forgotten.of(key) >= job.ends_ms()
    }

    /// Returns the names with lower counts here than in `elsewhere`: the missed purges.
    pub fn missed(&self, elsewhere: &PurgeCounts) -> Vec<String> {
        let counts = self.read();
        let is_behind = |name: &str, count: u64| counts.get(name).copied().unwrap_or(0) < count;
        believed(elsewhere).filter(|(name, count)| is_behind(name, **count)).map(|(name, _)| name.clone()).collect()
    }

    /// Merges counts from elsewhere by taking the larger value.
    pub fn learn(&self, elsewhere: &PurgeCounts) {
        raise_to(&mut self.write(), elsewhere);
    }

    /// Adds these counts to the state to be saved. They are applied only after it is saved: after a restart, a process
    /// must not begin below a count under which records were stored.
    pub fn expect(&self, elsewhere: &PurgeCounts) {
        raise_to(&mut self.expected.lock().unwrap_or_else(PoisonError::into_inner), elsewhere);
    }

    /// Adds an unsent purge, which is already counted here.
    pub fn add_unsent(&self, name: &str) {
        *self.lock_unsent().entry(name.to_owned()).or_default() += 1;
    }

    /// Returns all unsent purges.
    pub fn unsent(&self) -> UnsentPurges {
        self.lock_unsent().clone()
    }

    /// Removes purges that were sent.
    pub fn mark_sent(&self, sent: &UnsentPurges) {
        let mut unsent = self.lock_unsent();
        for (name, count) in sent {
            if let Some(left) = unsent.get_mut(name) {
                // Another purge may have been added after `sent` was read, so only the sent ones are subtracted.
                *left = left.saturating_sub(*count);
            }
        }
        unsent.retain(|_, left| *left > 0);
        drop(unsent);
        // The link manager calls this every second. The disk tier rewrites its file only if purges were sent.
        if !sent.is_empty() {
            self.sent.notify_one();
        }
    }

    /// Adds the purges that an earlier process could not send.
    pub fn add_saved(&self, left: &UnsentPurges) {
        let mut unsent = self.lock_unsent();
        for (name, count) in left {
            let known = unsent.entry(name.clone()).or_default();
            *known = known.saturating_add(*count).min(MAX_COUNT);
        }
    }

    /// Resolves when purges were sent since the last call. Supports one waiting task.
    pub async fn sent(&self) {
        self.sent.notified().await;
    }

    /// Returns the state to save. Unsent purges are read first: then the count of a purge in between is saved in any
    /// case.
    pub fn to_save(&self) -> SavedPurges {
        let (unsent, mut counts) = (self.unsent(), self.counts());
        raise_to(&mut counts, &self.expected.lock().unwrap_or_else(PoisonError::into_inner));
        SavedPurges { counts, forgotten: self.forgotten.to_save(), unsent }
    }

    fn lock_unsent(&self) -> MutexGuard<'_, UnsentPurges> {
        self.unsent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns all counts.
    pub fn counts(&self) -> PurgeCounts {
        self.read().clone()
    }

    fn read(&self) -> RwLockReadGuard<'_, PurgeCounts> {
        self.counts.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, PurgeCounts> {
        self.counts.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn raise_to(counts: &mut PurgeCounts, others: &PurgeCounts) {
    for (name, count) in believed(others) {
        let known = counts.entry(name.clone()).or_default();
        // Counts only grow, so the larger one includes the purges of both sides.
        *known = (*known).max(*count);
    }
}

/// Returns the count of a purge at this time, which follows the count `before`.
fn purged_at(now_ms: u64, before: u64) -> u64 {
    // Half of the range is left for counts that only grow by one.
    now_ms.min(MAX_COUNT / 2).max(before + 1)
}

fn believed(counts: &PurgeCounts) -> impl Iterator<Item = (&String, &u64)> {
    counts.iter().filter(|(_, count)| **count <= MAX_COUNT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_near_the_integer_maximum_are_ignored() {
        let (purges, forged) = (PurgeRegistry::default(), PurgeCounts::from([(EVERYTHING.to_owned(), u64::MAX)]));
        assert_eq!(purges.missed(&forged), [""; 0]);
        purges.learn(&forged);
        purges.expect(&forged);
        purges.add_saved(&UnsentPurges::from([("everything".to_owned(), u64::MAX)]));
        purges.add_unsent("everything");
        purges.raise(None, 0);
        assert_eq!((purges.of(&["a"]), purges.to_save().counts[EVERYTHING]), (1, 1));
    }

    #[test]
    fn a_job_is_covered_by_purges_and_forgets_since_it_began() {
        let (purges, keys) = (PurgeRegistry::default(), [1, 2].map(|n| Key::from_bytes([n; 32])));
        purges.raise(Some("a"), 500);
        purges.forgotten().raise(&keys[..1], 500 + 100);
        let is_covered = |began_ms, key: &Key, name| {
            purges.was_purged_since(JobStart { began_ms, remembered_ms: 100 }, key, &[name, "asked"])
        };
        assert_eq!([500, 501].map(|began_ms| is_covered(began_ms, &keys[1], "a")), [true, false]);
        assert_eq!([500, 501].map(|began_ms| is_covered(began_ms, &keys[0], "b")), [true, false]);
        assert!(!is_covered(400, &keys[1], "b"), "neither its model nor its input");
        purges.raise(None, 700);
        assert!(is_covered(600, &keys[1], "b"));
        purges.raise(None, 700);
        assert!(is_covered(701, &keys[1], "b"), "two purges in one millisecond are two counts");
    }

    #[test]
    fn expected_counts_are_saved_before_they_apply() {
        let (purges, elsewhere) = (PurgeRegistry::default(), PurgeCounts::from([("a".to_owned(), 3)]));
        purges.expect(&elsewhere);
        assert_eq!((purges.of(&["a"]), purges.to_save().counts), (0, elsewhere.clone()));
        purges.learn(&elsewhere);
        purges.raise(Some("a"), 0);
        assert_eq!(purges.to_save().counts["a"], 4);
    }

    #[test]
    fn a_purge_raises_the_count_of_its_own_model_only() {
        let purges = PurgeRegistry::default();
        let before = [purges.of(&["a", "a-v2"]), purges.of(&["b", "b"])];
        purges.raise(Some("a-v2"), 0);
        assert!(purges.of(&["a", "a-v2"]) > before[0]);
        assert_eq!(purges.of(&["b", "b"]), before[1]);
        purges.raise(None, 0);
        assert!(purges.of(&["b", "b"]) > before[1]);
        purges.raise(Some("b"), 0);
        assert_eq!(purges.of(&["b", "b"]), purges.of(&["b"]), "one name counts once");
    }

    #[tokio::test]
    async fn purges_added_while_others_are_sent_remain_unsent() {
        let purges = PurgeRegistry::default();
        purges.add_unsent("a");
        let sent = purges.unsent();
        purges.add_unsent("a");
        purges.mark_sent(&sent);
        assert_eq!(purges.unsent(), UnsentPurges::from([("a".to_owned(), 1)]));
        assert!(futures_util::poll!(Box::pin(purges.sent())).is_ready(), "what is noted has to change");
        purges.mark_sent(&UnsentPurges::new());
        assert!(futures_util::poll!(Box::pin(purges.sent())).is_pending());
        purges.add_saved(&UnsentPurges::from([("a".to_owned(), 2), ("b".to_owned(), 1)]));
        assert_eq!(purges.unsent(), UnsentPurges::from([("a".to_owned(), 3), ("b".to_owned(), 1)]));
        purges.mark_sent(&purges.unsent());
        assert!(purges.unsent().is_empty());
    }

    #[test]
    fn purges_of_other_replicas_are_applied_once() {
        let (here, there) = (PurgeRegistry::default(), PurgeRegistry::default());
        there.raise(Some("a"), 0);
        there.raise(None, 0);
        assert_eq!(here.missed(&there.counts()), [EVERYTHING, "a"]);
        here.learn(&there.counts());
        assert_eq!(here.missed(&there.counts()), [""; 0]);
        assert_eq!(here.of(&["a"]), there.of(&["a"]));
        here.raise(Some("a"), 0);
        assert_eq!(here.missed(&there.counts()), [""; 0], "fewer purges are no news");
        let before = here.of(&["a"]);
        here.learn(&there.counts());
        assert_eq!(here.of(&["a"]), before);
    }

    #[test]
    fn a_purge_beyond_the_maximum_of_names_purges_everything() {
        let purges = PurgeRegistry::default();
        for n in 0..MAX_NAMES {
            purges.raise(Some(&n.to_string()), 0);
        }
        let before = purges.of(&["other"]);
        assert_eq!(purges.raise(Some("one more"), 0), EVERYTHING);
        assert!(purges.of(&["other"]) > before);
        assert_eq!(purges.counts().len(), MAX_NAMES + 1);
    }
}
