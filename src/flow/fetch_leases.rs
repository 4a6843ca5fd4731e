//! The lease store of a process, and how fetches use it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::awaited::AwaitedTable;
use crate::cache::{Found, LeaseEnd, LeaseLookup, Leases};
use crate::key::Key;
use crate::upstream::{Class, Failure, UnavailableReason};

/// Leases, and the fetches of other replicas that this process waits for.
#[derive(Clone, Debug)]
pub struct FetchLeases {
    pub(super) store: Arc<dyn Leases>,
    pub(super) awaited: Arc<AwaitedTable>,
}

impl FetchLeases {
    /// Uses the leases of `store`.
    pub fn new(store: Arc<dyn Leases>) -> Self {
        Self { store, awaited: Arc::default() }
    }

    /// Returns a guard for the leases that a look-up of `keys` takes.
    pub(super) fn of_lookup(&self, keys: Vec<Key>) -> LookupLeases {
        LookupLeases { store: Arc::clone(&self.store), keys, has_unread: AtomicBool::new(false) }
    }
}

/// Leases that a look-up may have taken. Those that no fetch has got are given back when it is dropped.
pub(super) struct LookupLeases {
    store: Arc<dyn Leases>,
    keys: Vec<Key>,
    has_unread: AtomicBool,
}

impl LookupLeases {
    /// Returns the leases as a look-up takes them.
    pub(super) fn lookup(&self, call_time: Option<Duration>) -> LeaseLookup<'_> {
        LeaseLookup { store: &*self.store, call_time, has_unread: &self.has_unread }
    }

    /// Returns true if the look-up left stored values unread, because together they exceed memory.
    pub(super) fn has_unread(&self) -> bool {
        self.has_unread.load(Ordering::Relaxed)
    }

    /// Gives the leases of keys back that were found in another tier. `found` has the results of the look-up.
    pub(super) fn keep_missing(&mut self, found: &[Found]) {
        let keys = std::mem::take(&mut self.keys).into_iter().zip(found);
        let (found, missing): (Vec<_>, Vec<_>) = keys.partition(|(_, found)| found.is_fresh());
        self.keys = missing.into_iter().map(|(key, _)| key).collect();
        self.store.give_back(&found.into_iter().map(|(key, _)| key).collect::<Vec<Key>>());
    }
}

impl Drop for LookupLeases {
    fn drop(&mut self) {
        self.store.give_back(&self.keys);
    }
}

/// Returns what a failure means for the replicas that wait for the fetch.
pub(super) fn lease_end(failure: &Failure) -> LeaseEnd {
    match failure.class {
        // The upstream was not called, so this proves nothing about the inputs.
        Class::Unavailable(UnavailableReason::Expired | UnavailableReason::Stopping) => LeaseEnd::GivenUp,
        _ => LeaseEnd::Failed,
    }
}
