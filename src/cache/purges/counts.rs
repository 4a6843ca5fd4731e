//! Purge counts for records that outlive the process or are shared between several processes.
//!
//! Every purge raises one count: that of a model's name, or that of everything. A stored record carries its epoch, the
//! sum of the counts that apply to it. Counts only grow, so a later purge makes the sum larger than the epoch in the
//! record, and the record is never served again, wherever it is stored. Counts of other processes are merged by taking
//! the larger value.
//!
//! In addition to the counts there are debts: purges that the processes sharing a tier have not been told of yet.
//! Counts and debts are saved together, so a process that restarts after an outage knows what it still has to publish.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::Notify;

/// Name under which purges of everything are counted. No model has this name, because model names are never empty.
pub const EVERYTHING: &str = "";

/// Largest count accepted from other processes. Each purge adds one, so a larger count is an error or a forgery, and
/// would leave no room for later purges.
pub const MAX_COUNT: u64 = 1 << 48;

/// Limit on names that this process counts separately. Beyond it, a purge of another name becomes a purge of
/// everything.
const MAX_NAMES: usize = 1_000;

/// Purge counts by name of the model.
pub type PurgeCounts = BTreeMap<String, u64>;

/// Debts by name of the field in the shared tier.
pub type UnsentPurges = BTreeMap<String, u64>;

/// State that must survive a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SavedPurges {
    /// All known purges.
    pub counts: PurgeCounts,
    /// Purges that other processes have not been told of yet.
    pub unsent: UnsentPurges,
}

/// Counts and debts known to this process.
#[derive(Debug, Default)]
pub struct PurgeRegistry {
    counts: RwLock<PurgeCounts>,
    /// Counts that are about to be learned.
    expected: Mutex<PurgeCounts>,
    unsent: Mutex<UnsentPurges>,
    paid: Notify,
}

impl PurgeRegistry {
    /// Returns the epoch of a record with these names, which may contain duplicates.
    pub fn of(&self, names: &[&str]) -> u64 {
        let counts = self.read();
        let count = |name: &str| counts.get(name).copied().unwrap_or(0);
        let is_new = |place: usize| !names[..place].contains(&names[place]);
        let named: u64 = (0..names.len()).filter(|place| is_new(*place)).map(|place| count(names[place])).sum();
        count(EVERYTHING) + named
    }

    /// Counts a purge of one model or of everything, and returns the name of the count.
    pub fn raise(&self, model: Option<&str>) -> String {
        let mut counts = self.write();
        let name = model.unwrap_or(EVERYTHING);
        let name = if counts.contains_key(name) || counts.len() < MAX_NAMES { name } else { EVERYTHING };
        *counts.entry(name.to_owned()).or_default() += 1;
        name.to_owned()
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

    /// Adds a debt for a purge that is already counted here.
    pub fn owe(&self, debt: &str) {
        *self.lock_debts().entry(debt.to_owned()).or_default() += 1;
    }

    /// Returns all debts.
    pub fn unsent(&self) -> UnsentPurges {
        self.lock_debts().clone()
    }

    /// Removes debts that have been published.
    pub fn pay(&self, told: &UnsentPurges) {
        let mut unsent = self.lock_debts();
        for (debt, count) in told {
            if let Some(left) = unsent.get_mut(debt) {
                *left = left.saturating_sub(*count);
            }
        }
        unsent.retain(|_, left| *left > 0);
        drop(unsent);
        if !told.is_empty() {
            self.paid.notify_one();
        }
    }

    /// Adds the debts that an earlier process could not publish.
    pub fn inherit(&self, left: &UnsentPurges) {
        let mut unsent = self.lock_debts();
        for (debt, count) in left {
            let owed = unsent.entry(debt.clone()).or_default();
            *owed = owed.saturating_add(*count).min(MAX_COUNT);
        }
    }

    /// Resolves when debts were paid since the last call. Supports one waiting task.
    pub async fn paid(&self) {
        self.paid.notified().await;
    }

    /// Returns the state to save. Debts are read first: then the count of a purge in between is saved in any case.
    pub fn to_note(&self) -> SavedPurges {
        let (unsent, mut counts) = (self.unsent(), self.counts());
        raise_to(&mut counts, &self.expected.lock().unwrap_or_else(PoisonError::into_inner));
        SavedPurges { counts, unsent }
    }

    fn lock_debts(&self) -> MutexGuard<'_, UnsentPurges> {
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
        *known = (*known).max(*count);
    }
}

fn believed(counts: &PurgeCounts) -> impl Iterator<Item = (&String, &u64)> {
    counts.iter().filter(|(_, count)| **count <= MAX_COUNT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_that_leave_no_room_for_purges_are_not_believed() {
        let (epochs, forged) = (PurgeRegistry::default(), PurgeCounts::from([(EVERYTHING.to_owned(), u64::MAX)]));
        assert_eq!(epochs.missed(&forged), [""; 0]);
        epochs.learn(&forged);
        epochs.expect(&forged);
        epochs.inherit(&UnsentPurges::from([("everything".to_owned(), u64::MAX)]));
        epochs.owe("everything");
        epochs.raise(None);
        assert_eq!((epochs.of(&["a"]), epochs.to_note().counts[EVERYTHING]), (1, 1));
    }

    #[test]
    fn what_is_expected_is_noted_and_not_in_force() {
        let (epochs, elsewhere) = (PurgeRegistry::default(), PurgeCounts::from([("a".to_owned(), 3)]));
        epochs.expect(&elsewhere);
        assert_eq!((epochs.of(&["a"]), epochs.to_note().counts), (0, elsewhere.clone()));
        epochs.learn(&elsewhere);
        epochs.raise(Some("a"));
        assert_eq!(epochs.to_note().counts["a"], 4);
    }

    #[test]
    fn a_purge_raises_the_epoch_of_its_like_alone() {
        let epochs = PurgeRegistry::default();
        let before = [epochs.of(&["a", "a-v2"]), epochs.of(&["b", "b"])];
        epochs.raise(Some("a-v2"));
        assert!(epochs.of(&["a", "a-v2"]) > before[0]);
        assert_eq!(epochs.of(&["b", "b"]), before[1]);
        epochs.raise(None);
        assert!(epochs.of(&["b", "b"]) > before[1]);
        epochs.raise(Some("b"));
        assert_eq!(epochs.of(&["b", "b"]), epochs.of(&["b"]), "one name counts once");
    }

    #[tokio::test]
    async fn of_a_debt_that_grew_while_it_was_told_the_rest_is_still_owed() {
        let epochs = PurgeRegistry::default();
        epochs.owe("a");
        let told = epochs.unsent();
        epochs.owe("a");
        epochs.pay(&told);
        assert_eq!(epochs.unsent(), UnsentPurges::from([("a".to_owned(), 1)]));
        assert!(futures_util::poll!(Box::pin(epochs.paid())).is_ready(), "what is noted has to change");
        epochs.pay(&UnsentPurges::new());
        assert!(futures_util::poll!(Box::pin(epochs.paid())).is_pending());
        epochs.inherit(&UnsentPurges::from([("a".to_owned(), 2), ("b".to_owned(), 1)]));
        assert_eq!(epochs.unsent(), UnsentPurges::from([("a".to_owned(), 3), ("b".to_owned(), 1)]));
        epochs.pay(&epochs.unsent());
        assert!(epochs.unsent().is_empty());
    }

    #[test]
    fn what_others_purged_is_learnt_once() {
        let (here, there) = (PurgeRegistry::default(), PurgeRegistry::default());
        there.raise(Some("a"));
        there.raise(None);
        assert_eq!(here.missed(&there.counts()), [EVERYTHING, "a"]);
        here.learn(&there.counts());
        assert_eq!(here.missed(&there.counts()), [""; 0]);
        assert_eq!(here.of(&["a"]), there.of(&["a"]));
        here.raise(Some("a"));
        assert_eq!(here.missed(&there.counts()), [""; 0], "fewer purges are no news");
        let before = here.of(&["a"]);
        here.learn(&there.counts());
        assert_eq!(here.of(&["a"]), before);
    }

    #[test]
    fn a_name_too_many_purges_everything() {
        let epochs = PurgeRegistry::default();
        for n in 0..MAX_NAMES {
            epochs.raise(Some(&n.to_string()));
        }
        let before = epochs.of(&["other"]);
        assert_eq!(epochs.raise(Some("one more")), EVERYTHING);
        assert!(epochs.of(&["other"]) > before);
        assert_eq!(epochs.counts().len(), MAX_NAMES + 1);
    }
}
