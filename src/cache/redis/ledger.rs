//! Purge counts of all replicas, and the purges that this process has not sent to them yet.
//!
//! All replicas share one hash of counts. A record carries the count that it was written under, and any larger count
//! invalidates it. After a purge, the shared count must therefore be above every count under which any replica may have
//! written before the purge.
//!
//! Three numbers decide for each name: the count `here`, the shared count as last seen, and the shared count now. If
//! the shared count has changed since it was last seen, another replica purged. Records may then exist under a local
//! count of that replica that is as high as ours, so the new count is one above both.
//!
//! Unsent purges are kept in the [`PurgeRegistry`], which survives a restart if there is a disk tier. A process that
//! restarts with an unsent purge has not seen the shared counts, so it also ends above them: two replicas that purged
//! in one outage never tie.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::link::Change;
use crate::cache::purges::{EVERYTHING, MAX_COUNT, PurgeCounts, PurgeRegistry, UnsentPurges};

const ALL_FIELD: &str = "everything";
const CLEARED_FIELD: &str = "cleared";
const MODEL_FIELD: &str = "model:";

/// Counts by field of the shared hash.
type FieldCounts = BTreeMap<String, u64>;

/// Purge counts of this process and of the shared hash. The module documentation describes the rules.
#[derive(Debug)]
pub struct Ledger {
    purges: Arc<PurgeRegistry>,
    inner: Mutex<LedgerInner>,
}

#[derive(Debug, Default)]
struct LedgerInner {
    /// Shared counts as last seen; `None` before the first read.
    seen: Option<FieldCounts>,
    /// Number of times that this tier was cleared.
    clear_count: u64,
}

/// Changes that follow from one read of the shared counts.
#[derive(Debug)]
pub struct PurgePlan {
    /// Changes to the shared hash.
    pub changes: Vec<Change>,
    /// Shared counts that were read.
    found: FieldCounts,
    /// Counts to be reached, locally and in the shared hash.
    settled: FieldCounts,
    /// Unsent purges at the time of the plan.
    unsent: UnsentPurges,
}

impl PurgePlan {
    /// Returns the counts to apply locally, whether the changes succeed or not.
    pub fn news(&self) -> PurgeCounts {
        self.settled.iter().filter_map(|(field, count)| Some((name(field)?, *count))).collect()
    }
}

impl Ledger {
    /// Creates a ledger that has not read the shared counts yet.
    pub fn new(purges: Arc<PurgeRegistry>) -> Self {
        Self { purges, inner: Mutex::default() }
    }

    /// Returns the number of clearings of this tier so far. Records from before the last one have other names.
    pub(super) fn clear_count(&self) -> u64 {
        self.lock().clear_count
    }

    /// Adds an unsent purge of this process that is counted in the [`PurgeRegistry`] under `name`.
    pub fn add_unsent(&self, name: &str) {
        self.purges.add_unsent(&field(name));
    }

    /// Adds an unsent clearing of this tier.
    pub(super) fn add_unsent_clear(&self) {
        self.lock().clear_count += 1;
        self.purges.add_unsent(CLEARED_FIELD);
    }

    /// Returns true if all purges of this process are published.
    pub fn is_settled(&self) -> bool {
        self.purges.unsent().is_empty()
    }

    /// Plans the changes for the current state of the shared hash.
    pub fn plan(&self, hash: &BTreeMap<String, String>) -> PurgePlan {
        let is_known = |field: &str| field == CLEARED_FIELD || name(field).is_some();
        let found: FieldCounts =
            hash.iter().filter(|(field, _)| is_known(field)).map(|(f, n)| (f.clone(), number(n))).collect();
        let inner = self.lock();
        // Counts first: if a purge happens in between, its unsent entry makes up for the missing count.
        let (here, unsent) = (self.here(&inner), self.purges.unsent());
        let fields: BTreeSet<&String> = found.keys().chain(here.keys()).chain(unsent.keys()).collect();
        let agree = |field: &String| {
            let count = |counts: &FieldCounts| counts.get(field).copied().unwrap_or(0);
            agreed_count(count(&here), inner.seen.as_ref().map(count), count(&found), unsent.contains_key(field))
        };
        let settled: FieldCounts = fields.into_iter().map(|field| (field.clone(), agree(field))).collect();
        drop(inner);
        let is_other = |(field, count): &(&String, &u64)| found.get(*field).copied().unwrap_or(0) != **count;
        let change = |(field, count): (&String, &u64)| {
            // The raw text is compared, so an invalid number is replaced too.
            let from = hash.get(field).cloned().unwrap_or_default();
            Change { field: field.clone(), from, to: count.to_string() }
        };
        let changes = settled.iter().filter(is_other).map(change).collect();
        PurgePlan { changes, found, settled, unsent }
    }

    /// Ends a plan. If its changes were not made, they remain to be published. Returns the counts to apply in either
    /// case, and the purges to mark as sent after that.
    pub fn end(&self, plan: PurgePlan, is_sent: bool) -> (PurgeCounts, UnsentPurges) {
        let mut inner = self.lock();
        inner.clear_count = inner.clear_count.max(plan.settled.get(CLEARED_FIELD).copied().unwrap_or(0));
        let counts = plan.news();
        // A failed change leaves the shared counts as they were read.
        inner.seen = Some(if is_sent { plan.settled } else { plan.found });
        (counts, if is_sent { plan.unsent } else { UnsentPurges::new() })
    }

    /// Marks purges as sent, after their counts were applied locally.
    pub fn mark_sent(&self, sent: &UnsentPurges) {
        self.purges.mark_sent(sent);
    }

    fn here(&self, inner: &LedgerInner) -> FieldCounts {
        let mut counts: FieldCounts = self.purges.counts().iter().map(|(name, count)| (field(name), *count)).collect();
        counts.insert(CLEARED_FIELD.to_owned(), inner.clear_count);
        counts
    }

    fn lock(&self) -> MutexGuard<'_, LedgerInner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the count on which all replicas are to agree.
fn agreed_count(here: u64, seen: Option<u64>, now: u64, is_unsent: bool) -> u64 {
    // Another replica purged, but its count would not exceed the one here.
    let is_news = seen.is_some_and(|seen| now > seen) && now <= here;
    if is_unsent && seen == Some(now) {
        // No other replica purged since: one above the shared count suffices.
        here.max(now + 1)
    } else if is_unsent || is_news {
        // Another replica may have written under a count as high as the one here.
        here.max(now) + 1
    } else {
        here.max(now)
    }
}

fn field(name: &str) -> String {
    if name == EVERYTHING { ALL_FIELD.to_owned() } else { format!("{MODEL_FIELD}{name}") }
}

fn name(field: &str) -> Option<String> {
    if field == ALL_FIELD {
        return Some(EVERYTHING.to_owned());
    }
    // Without a name the field would be taken for a purge of everything.
    field.strip_prefix(MODEL_FIELD).filter(|name| !name.is_empty()).map(str::to_owned)
}

/// Parses a count. Invalid or implausible numbers count as 0 and are replaced by the next purge.
fn number(text: &str) -> u64 {
    text.parse().ok().filter(|count| *count <= MAX_COUNT).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cache::purges::SavedPurges;

    /// A process with memory, a ledger, and a disk on which its purges are recorded.
    struct Replica {
        purges: Arc<PurgeRegistry>,
        ledger: Ledger,
        noted: SavedPurges,
        /// Times at which the records in its memory were fetched.
        memory: Vec<usize>,
    }

    /// A record below memory: the time it was fetched, and its count.
    struct Stored {
        at: usize,
        purge_count: u64,
    }

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Purge(usize),
        Fetch(usize),
        /// It reads the shared counts and changes them.
        Agree(usize),
        /// As `Agree`, with a purge by the same process in between.
        AgreeWhilePurging(usize),
        /// It reads the shared counts and changes them, and stops before it gets the response.
        GiveUp(usize),
        /// It may read the counts but not change them.
        LookOnly(usize),
        /// It restarts.
        Restart(usize),
        /// It changes the shared counts, and restarts before it has recorded that.
        AgreeAndRestart(usize),
    }

    impl Replica {
        fn new() -> Self {
            let purges = Arc::<PurgeRegistry>::default();
            Self { ledger: Ledger::new(Arc::clone(&purges)), purges, noted: SavedPurges::default(), memory: Vec::new() }
        }

        fn purge(&mut self) {
            let name = self.purges.raise(None);
            self.ledger.add_unsent(&name);
            self.noted = self.purges.to_save();
            self.memory.clear();
        }

        fn restart(&mut self) {
            let noted = std::mem::take(&mut self.noted);
            *self = Self::new();
            self.purges.learn(&noted.counts);
            self.purges.add_saved(&noted.unsent);
            self.noted = noted;
        }

        /// Makes a plan and records everything that would be learned from it.
        fn planned(&mut self, hash: &BTreeMap<String, String>) -> PurgePlan {
            let plan = self.ledger.plan(hash);
            if !self.purges.missed(&plan.news()).is_empty() {
                self.purges.expect(&plan.news());
                self.noted = self.purges.to_save();
            }
            plan
        }

        fn give_up(&mut self, hash: &mut BTreeMap<String, String>) {
            let plan = self.planned(hash);
            hash.extend(plan.changes.iter().map(|change| (change.field.clone(), change.to.clone())));
        }

        fn agree(&mut self, hash: &mut BTreeMap<String, String>, may_change: bool, purges_meanwhile: bool) {
            let plan = self.planned(hash);
            if purges_meanwhile {
                self.purge();
            }
            if may_change {
                hash.extend(plan.changes.iter().map(|change| (change.field.clone(), change.to.clone())));
            }
            let is_sent = may_change || plan.changes.is_empty();
            let (counts, sent) = self.ledger.end(plan, is_sent);
            if !self.purges.missed(&counts).is_empty() {
                self.memory.clear();
            }
            self.purges.learn(&counts);
            self.ledger.mark_sent(&sent);
        }
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = (0..3_usize, 0..8_u8).prop_map(|(who, what)| match what {
            0 => Event::Purge(who),
            1 => Event::Fetch(who),
            2 => Event::Agree(who),
            3 => Event::AgreeWhilePurging(who),
            4 => Event::LookOnly(who),
            5 => Event::Restart(who),
            6 => Event::GiveUp(who),
            _ => Event::AgreeAndRestart(who),
        });
        prop::collection::vec(event, 1..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        #[test]
        fn purged_records_are_gone_once_all_replicas_know_the_purge(events in events()) {
            let mut replicas = [Replica::new(), Replica::new(), Replica::new()];
            let (mut hash, mut stored, mut last_purge) = (BTreeMap::new(), Vec::<Stored>::new(), None);
            for (at, event) in events.into_iter().enumerate() {
                match event {
                    Event::Purge(who) => {
                        replicas[who].purge();
                        last_purge = Some(at);
                    }
                    Event::Fetch(who) => {
                        stored.push(Stored { at, purge_count: replicas[who].purges.of(&["m"]) });
                        replicas[who].memory.push(at);
                    }
                    Event::Agree(who) => {
                        replicas[who].agree(&mut hash, true, false);
                        replicas[who].noted = replicas[who].purges.to_save();
                    }
                    Event::Restart(who) => replicas[who].restart(),
                    Event::AgreeAndRestart(who) => {
                        replicas[who].agree(&mut hash, true, false);
                        replicas[who].restart();
                    }
                    Event::AgreeWhilePurging(who) => {
                        replicas[who].agree(&mut hash, true, true);
                        last_purge = Some(at);
                    }
                    Event::GiveUp(who) => replicas[who].give_up(&mut hash),
                    Event::LookOnly(who) => replicas[who].agree(&mut hash, false, false),
                }
            }
            for _ in 0..2 {
                for replica in &mut replicas {
                    replica.agree(&mut hash, true, false);
                }
            }
            for replica in &replicas {
                prop_assert!(replica.ledger.is_settled());
                let now = replica.purges.of(&["m"]);
                for stored in stored.iter().filter(|stored| last_purge.is_some_and(|purge| stored.at < purge)) {
                    prop_assert!(stored.purge_count < now, "stored at {} under {}, now {now}", stored.at, stored.purge_count);
                }
                for at in &replica.memory {
                    prop_assert!(last_purge.is_none_or(|purge| *at > purge), "in memory since {at}");
                }
            }
        }
    }

    #[test]
    fn one_purge_is_one_change_and_all_replicas_agree_on_the_count() {
        let (mut one, mut other, mut hash) = (Replica::new(), Replica::new(), BTreeMap::new());
        one.agree(&mut hash, true, false);
        other.agree(&mut hash, true, false);
        assert!(hash.is_empty(), "nothing happened");
        one.purge();
        one.agree(&mut hash, true, false);
        other.memory.push(0);
        other.agree(&mut hash, true, false);
        assert_eq!((one.purges.of(&["m"]), other.purges.of(&["m"])), (1, 1));
        assert!(other.memory.is_empty());
        assert_eq!(hash, BTreeMap::from([(ALL_FIELD.to_owned(), "1".to_owned())]));
    }

    #[test]
    fn a_lost_hash_is_restored_without_purging_any_replica() {
        let (mut one, mut other, mut hash) = (Replica::new(), Replica::new(), BTreeMap::new());
        one.agree(&mut hash, true, false);
        one.purge();
        for replica in [&mut one, &mut other] {
            replica.agree(&mut hash, true, false);
            replica.memory.push(1);
        }
        hash.clear();
        for replica in [&mut one, &mut other] {
            replica.agree(&mut hash, true, false);
            assert_eq!(replica.memory, [1]);
        }
        assert_eq!(hash[ALL_FIELD], "1");
    }

    #[test]
    fn unknown_fields_of_the_hash_are_left_unchanged() {
        let ledger = Ledger::new(Arc::default());
        let hash = BTreeMap::from([("of a later version".to_owned(), "7".to_owned())]);
        assert!(ledger.plan(&hash).changes.is_empty());
        ledger.add_unsent("m");
        let hash = BTreeMap::from([("model:m".to_owned(), "rubbish".to_owned())]);
        let change = Change { field: "model:m".to_owned(), from: "rubbish".to_owned(), to: "1".to_owned() };
        assert_eq!(ledger.plan(&hash).changes, [change]);
    }

    #[test]
    fn a_count_at_the_integer_maximum_is_replaced_by_the_first_purge() {
        let (mut replica, largest) = (Replica::new(), u64::MAX.to_string());
        let mut hash = BTreeMap::from([(ALL_FIELD.to_owned(), largest.clone()), (CLEARED_FIELD.to_owned(), largest)]);
        replica.agree(&mut hash, true, false);
        assert_eq!(replica.purges.of(&["m"]), 0);
        replica.purge();
        replica.agree(&mut hash, true, false);
        assert_eq!((replica.purges.of(&["m"]), hash[ALL_FIELD].as_str()), (1, "1"));
    }

    #[test]
    fn a_model_without_a_name_does_not_hide_a_purge_of_everything() {
        let mut hash =
            BTreeMap::from([(ALL_FIELD.to_owned(), "5".to_owned()), (MODEL_FIELD.to_owned(), "1".to_owned())]);
        let mut replica = Replica::new();
        replica.agree(&mut hash, true, false);
        assert_eq!(replica.purges.of(&["m"]), 5);
    }
}
