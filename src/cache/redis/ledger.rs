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
use crate::cache::purges::{EVERYTHING, MAX_COUNT, PurgeNews, PurgeRegistry, PurgeSubject, UnsentPurges};
use crate::key::Key;

const ALL_FIELD: &str = "everything";
const CLEARED_FIELD: &str = "cleared";
const MODEL_FIELD: &str = "model:";
const INPUT_FIELD: &str = "input:";

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
    pub fn news(&self) -> PurgeNews {
        let mut news = PurgeNews::default();
        for (field, count) in &self.settled {
            if let Some(name) = name(field) {
                news.counts.insert(name, *count);
            } else if let Some(key) = key(field) {
                news.forgotten.insert(key, *count);
            }
        }
        news
    }

    /// Returns the keys that this process has forgotten and whose purges it sends.
    pub fn forgotten_by_us(&self) -> Vec<Key> {
        self.unsent.keys().filter_map(|field| key(field)).collect()
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

    /// Adds an unsent purge of this process that is counted in the [`PurgeRegistry`].
    pub fn add_unsent(&self, subject: &PurgeSubject) {
        match subject {
            PurgeSubject::Everything => self.purges.add_unsent(ALL_FIELD),
            PurgeSubject::Model(model) => self.purges.add_unsent(&field(model)),
            PurgeSubject::Inputs(keys) => keys.iter().for_each(|key| self.purges.add_unsent(&input_field(key))),
        }
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

    /// Plans the changes for the state of the shared hash at this time. Counts of forgotten keys that are over are
    /// dropped, here and in the hash.
    pub fn plan(&self, hash: &BTreeMap<String, String>, now_ms: u64) -> PurgePlan {
        self.purges.forgotten().expire(now_ms);
        let is_over = |field: &str, count: u64| key(field).is_some() && count <= now_ms;
        let is_known = |field: &str| field == CLEARED_FIELD || name(field).is_some() || key(field).is_some();
        let known = hash.iter().filter(|(field, _)| is_known(field)).map(|(f, n)| (f.clone(), number(n)));
        let (over, found): (FieldCounts, FieldCounts) = known.partition(|(field, count)| is_over(field, *count));
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
        let removal = |field: &String| {
            let from = hash.get(field).cloned().unwrap_or_default();
            Change { field: field.clone(), from, to: String::new() }
        };
        let removals = over.keys().filter(|field| !settled.contains_key(*field)).map(removal);
        let changes = settled.iter().filter(is_other).map(change).chain(removals).collect();
        PurgePlan { changes, found, settled, unsent }
    }

    /// Ends a plan. If its changes were not made, they remain to be published. Returns the counts to apply in either
    /// case, and the purges to mark as sent after that.
    pub fn end(&self, plan: PurgePlan, is_sent: bool) -> (PurgeNews, UnsentPurges) {
        let mut inner = self.lock();
        inner.clear_count = inner.clear_count.max(plan.settled.get(CLEARED_FIELD).copied().unwrap_or(0));
        let news = plan.news();
        // A failed change leaves the shared counts as they were read.
        inner.seen = Some(if is_sent { plan.settled } else { plan.found });
        (news, if is_sent { plan.unsent } else { UnsentPurges::new() })
    }

    /// Marks purges as sent, after their counts were applied locally.
    pub fn mark_sent(&self, sent: &UnsentPurges) {
        self.purges.mark_sent(sent);
    }

    fn here(&self, inner: &LedgerInner) -> FieldCounts {
        let mut counts: FieldCounts = self.purges.counts().iter().map(|(name, count)| (field(name), *count)).collect();
        counts.extend(self.purges.forgotten().all().iter().map(|(key, count)| (input_field(key), *count)));
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

fn input_field(key: &Key) -> String {
    format!("{INPUT_FIELD}{key}")
}

fn key(field: &str) -> Option<Key> {
    field.strip_prefix(INPUT_FIELD).and_then(Key::from_hex)
}

/// Parses a count. Invalid or implausible numbers count as 0 and are replaced by the next purge.
fn number(text: &str) -> u64 {
    text.parse().ok().filter(|count| *count <= MAX_COUNT).unwrap_or(0)
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
