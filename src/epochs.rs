//! Counts purges for what outlives the process or is shared between several.
//!
//! Every purge raises one count: that of a model's name, or the one of everything. A record that is put at rest carries
//! its epoch, the sum of the counts that concern it. Counts only grow, so a later purge of its like makes the sum
//! larger than what the record carries, and it is never served again, wherever it lay meanwhile. Who learns of the
//! counts of others takes the larger ones.
//!
//! Beside the counts stand the debts: purges of which those who share a tier with this process have yet to hear. Both
//! are kept together, so that who starts anew after an outage knows what it still has to tell.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::Notify;

/// The name under which purges of everything are counted. No model can have it: their names are never empty.
pub const EVERYTHING: &str = "";

/// Largest count that is believed of others. Each purge adds one, so a larger count is an error or forged, and would
/// leave no room for later purges.
pub const MAX_COUNT: u64 = 1 << 48;

/// Names that this process counts apart; with more of them, a purge of one more is a purge of everything.
const MAX_NAMES: usize = 1_000;

/// Purges by the name of the model that they concern.
pub type PurgeCounts = BTreeMap<String, u64>;

/// Purges that others have yet to hear of, by the names that the tier has for them which they share.
pub type Debts = BTreeMap<String, u64>;

/// What is to outlive a process: the counts, and the debts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// All purges known.
    pub counts: PurgeCounts,
    /// Those that others have yet to hear of.
    pub debts: Debts,
}

/// The counts and debts as known here.
#[derive(Debug, Default)]
pub struct Epochs {
    counts: RwLock<PurgeCounts>,
    /// Counts that are about to be learnt.
    expected: Mutex<PurgeCounts>,
    debts: Mutex<Debts>,
    paid: Notify,
}

impl Epochs {
    /// The epoch of what goes by these names, of which some may be equal.
    pub fn of(&self, names: &[&str]) -> u64 {
        let counts = self.read();
        let count = |name: &str| counts.get(name).copied().unwrap_or(0);
        let is_new = |place: usize| !names[..place].contains(&names[place]);
        let named: u64 = (0..names.len()).filter(|place| is_new(*place)).map(|place| count(names[place])).sum();
        count(EVERYTHING) + named
    }

    /// Notes a purge of one model, or of everything; returns the name whose count it raised.
    pub fn raise(&self, model: Option<&str>) -> String {
        let mut counts = self.write();
        let name = model.unwrap_or(EVERYTHING);
        let name = if counts.contains_key(name) || counts.len() < MAX_NAMES { name } else { EVERYTHING };
        *counts.entry(name.to_owned()).or_default() += 1;
        name.to_owned()
    }

    /// The names whose counts are lower here than elsewhere: the purges missed.
    pub fn missed(&self, elsewhere: &PurgeCounts) -> Vec<String> {
        let counts = self.read();
        let is_behind = |name: &str, count: u64| counts.get(name).copied().unwrap_or(0) < count;
        believed(elsewhere).filter(|(name, count)| is_behind(name, **count)).map(|(name, _)| name.clone()).collect()
    }

    /// Takes in what is known elsewhere, where it is more.
    pub fn learn(&self, elsewhere: &PurgeCounts) {
        raise_to(&mut self.write(), elsewhere);
    }

    /// Has these counts noted from now on. They are to be learnt once they are: who starts anew must not begin below a
    /// count that something was stored under.
    pub fn expect(&self, elsewhere: &PurgeCounts) {
        raise_to(&mut self.expected.lock().unwrap_or_else(PoisonError::into_inner), elsewhere);
    }

    /// A purge that is noted here has yet to become known elsewhere.
    pub fn owe(&self, debt: &str) {
        *self.lock_debts().entry(debt.to_owned()).or_default() += 1;
    }

    /// What others have yet to hear.
    pub fn debts(&self) -> Debts {
        self.lock_debts().clone()
    }

    /// These have become known elsewhere.
    pub fn pay(&self, told: &Debts) {
        let mut debts = self.lock_debts();
        for (debt, count) in told {
            if let Some(left) = debts.get_mut(debt) {
                *left = left.saturating_sub(*count);
            }
        }
        debts.retain(|_, left| *left > 0);
        drop(debts);
        if !told.is_empty() {
            self.paid.notify_one();
        }
    }

    /// Takes over what an earlier process could not tell.
    pub fn inherit(&self, left: &Debts) {
        let mut debts = self.lock_debts();
        for (debt, count) in left {
            let owed = debts.entry(debt.clone()).or_default();
            *owed = owed.saturating_add(*count).min(MAX_COUNT);
        }
    }

    /// Resolves when debts were paid since this was last asked. For one asker.
    pub async fn paid(&self) {
        self.paid.notified().await;
    }

    /// All that is to be noted. Debts are read first: of a purge in between, the count is noted at least.
    pub fn to_note(&self) -> Noted {
        let (debts, mut counts) = (self.debts(), self.counts());
        raise_to(&mut counts, &self.expected.lock().unwrap_or_else(PoisonError::into_inner));
        Noted { counts, debts }
    }

    fn lock_debts(&self) -> MutexGuard<'_, Debts> {
        self.debts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All counts.
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
        let (epochs, forged) = (Epochs::default(), PurgeCounts::from([(EVERYTHING.to_owned(), u64::MAX)]));
        assert_eq!(epochs.missed(&forged), [""; 0]);
        epochs.learn(&forged);
        epochs.expect(&forged);
        epochs.inherit(&Debts::from([("everything".to_owned(), u64::MAX)]));
        epochs.owe("everything");
        epochs.raise(None);
        assert_eq!((epochs.of(&["a"]), epochs.to_note().counts[EVERYTHING]), (1, 1));
    }

    #[test]
    fn what_is_expected_is_noted_and_not_in_force() {
        let (epochs, elsewhere) = (Epochs::default(), PurgeCounts::from([("a".to_owned(), 3)]));
        epochs.expect(&elsewhere);
        assert_eq!((epochs.of(&["a"]), epochs.to_note().counts), (0, elsewhere.clone()));
        epochs.learn(&elsewhere);
        epochs.raise(Some("a"));
        assert_eq!(epochs.to_note().counts["a"], 4);
    }

    #[test]
    fn a_purge_raises_the_epoch_of_its_like_alone() {
        let epochs = Epochs::default();
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
        let epochs = Epochs::default();
        epochs.owe("a");
        let told = epochs.debts();
        epochs.owe("a");
        epochs.pay(&told);
        assert_eq!(epochs.debts(), Debts::from([("a".to_owned(), 1)]));
        assert!(futures_util::poll!(Box::pin(epochs.paid())).is_ready(), "what is noted has to change");
        epochs.pay(&Debts::new());
        assert!(futures_util::poll!(Box::pin(epochs.paid())).is_pending());
        epochs.inherit(&Debts::from([("a".to_owned(), 2), ("b".to_owned(), 1)]));
        assert_eq!(epochs.debts(), Debts::from([("a".to_owned(), 3), ("b".to_owned(), 1)]));
        epochs.pay(&epochs.debts());
        assert!(epochs.debts().is_empty());
    }

    #[test]
    fn what_others_purged_is_learnt_once() {
        let (here, there) = (Epochs::default(), Epochs::default());
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
        let epochs = Epochs::default();
        for n in 0..MAX_NAMES {
            epochs.raise(Some(&n.to_string()));
        }
        let before = epochs.of(&["other"]);
        assert_eq!(epochs.raise(Some("one more")), EVERYTHING);
        assert!(epochs.of(&["other"]) > before);
        assert_eq!(epochs.counts().len(), MAX_NAMES + 1);
    }
}
