//! What this process knows of everybody's purges, and what it has yet to tell.
//!
//! All replicas share one hash of counts. A count stands for everything that happened below it: a record carries the
//! count that it was written under, and is dead under any larger one. So what matters is that after a purge the shared
//! count lies above every count under which anybody may have written before it.
//!
//! Three numbers decide, for each name: the count `here`, the shared count as last seen, and as it is now. If it moved
//! since it was last seen, somebody else purged; somebody may then have written under a count of their own that is as
//! high as ours, so the new count is one above both.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::link::Change;
use crate::epochs::{EVERYTHING, Epochs, PurgeCounts};

const ALL_FIELD: &str = "everything";
const ERA_FIELD: &str = "cleared";
const MODEL_FIELD: &str = "model:";

/// Counts by the names of the shared hash.
type Counts = BTreeMap<String, u64>;

/// See above.
#[derive(Debug)]
pub(super) struct Ledger {
    epochs: Arc<Epochs>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The shared counts as last seen; nothing before the first look.
    seen: Option<Counts>,
    /// Purges of this process that are not in the shared counts, and how many.
    owed: BTreeMap<String, u64>,
    /// How often this tier was cleared.
    era: u64,
}

/// What one look at the shared counts leads to.
#[derive(Debug)]
pub(super) struct Plan {
    /// What is to be changed there.
    pub(super) changes: Vec<Change>,
    /// How the shared counts stand.
    found: Counts,
    /// How all counts are to stand, here and there.
    settled: Counts,
    /// What was owed when this was planned.
    owed: BTreeMap<String, u64>,
}

impl Ledger {
    pub(super) fn new(epochs: Arc<Epochs>) -> Self {
        Self { epochs, inner: Mutex::default() }
    }

    /// Which clearing of this tier what is stored now comes after.
    pub(super) fn era(&self) -> u64 {
        self.lock().era
    }

    /// A purge of this process is noted in the epochs under this name.
    pub(super) fn owe(&self, name: &str) {
        *self.lock().owed.entry(field(name)).or_default() += 1;
    }

    /// This tier is to be cleared.
    pub(super) fn owe_era(&self) {
        let mut inner = self.lock();
        inner.era += 1;
        *inner.owed.entry(ERA_FIELD.to_owned()).or_default() += 1;
    }

    /// Whether everybody could know of all purges of this process.
    pub(super) fn is_settled(&self) -> bool {
        self.lock().owed.is_empty()
    }

    /// What to do, as the shared hash stands.
    pub(super) fn plan(&self, hash: &BTreeMap<String, String>) -> Plan {
        let known = |field: &&String| *field == ALL_FIELD || *field == ERA_FIELD || field.starts_with(MODEL_FIELD);
        let found: Counts =
            hash.iter().filter(|(field, _)| known(field)).map(|(f, n)| (f.clone(), number(n))).collect();
        let inner = self.lock();
        let here = self.here(&inner);
        let fields: BTreeSet<&String> = found.keys().chain(here.keys()).chain(inner.owed.keys()).collect();
        let settle_one = |field: &String| {
            let count = |counts: &Counts| counts.get(field).copied().unwrap_or(0);
            settle(count(&here), inner.seen.as_ref().map(count), count(&found), inner.owed.contains_key(field))
        };
        let settled: Counts = fields.into_iter().map(|field| (field.clone(), settle_one(field))).collect();
        let owed = inner.owed.clone();
        drop(inner);
        let is_other = |(field, count): &(&String, &u64)| found.get(*field).copied().unwrap_or(0) != **count;
        let change = |(field, count): (&String, &u64)| {
            let from = hash.get(field).cloned().unwrap_or_default();
            Change { field: field.clone(), from, to: count.to_string() }
        };
        let changes = settled.iter().filter(is_other).map(change).collect();
        Plan { changes, found, settled, owed }
    }

    /// A plan was carried out, or could not be: then what it would have changed is still to be told. Returns what is to
    /// be learnt from it in either case.
    pub(super) fn settle(&self, plan: Plan, is_told: bool) -> PurgeCounts {
        let mut inner = self.lock();
        if is_told {
            for (field, count) in &plan.owed {
                if let Some(left) = inner.owed.get_mut(field) {
                    *left -= count;
                }
            }
            inner.owed.retain(|_, left| *left > 0);
        }
        inner.era = inner.era.max(plan.settled.get(ERA_FIELD).copied().unwrap_or(0));
        inner.seen = Some(if is_told { plan.settled.clone() } else { plan.found });
        drop(inner);
        plan.settled.into_iter().filter_map(|(field, count)| Some((name(&field)?, count))).collect()
    }

    fn here(&self, inner: &Inner) -> Counts {
        let mut counts: Counts = self.epochs.counts().iter().map(|(name, count)| (field(name), *count)).collect();
        counts.insert(ERA_FIELD.to_owned(), inner.era);
        counts
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The count on which all are to agree.
fn settle(here: u64, seen: Option<u64>, now: u64, is_owed: bool) -> u64 {
    let is_news = seen.is_some_and(|seen| now > seen) && now <= here;
    if is_owed && seen == Some(now) {
        here.max(now + 1)
    } else if is_owed || is_news {
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
    field.strip_prefix(MODEL_FIELD).map(str::to_owned)
}

/// Whatever is no number stands for none: it is replaced by the first purge.
fn number(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}
