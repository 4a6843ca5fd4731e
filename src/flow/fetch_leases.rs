//! The lease store of a process, and how fetches use it.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use crate::cache::{LeaseEnd, Leases};
use crate::upstream::{Class, Failure, UnavailableReason};

/// Leases, and the count of the fetches of other replicas that this process waits for.
#[derive(Clone, Debug)]
pub struct FetchLeases {
    pub(super) store: Arc<dyn Leases>,
    pub(super) awaited: Arc<AtomicUsize>,
}

impl FetchLeases {
    /// Uses the leases of `store`.
    pub fn new(store: Arc<dyn Leases>) -> Self {
        Self { store, awaited: Arc::default() }
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
