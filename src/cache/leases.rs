//! Leases that decide which replica fetches a missing key, kept in a tier that all replicas share.

use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;

use super::Tier;
use crate::key::Key;
use futures_util::future::BoxFuture;

/// State of the lease on one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseHolder {
    /// This process holds the lease until it releases it.
    Ours,
    /// Another process holds the lease for now.
    Theirs,
    /// The shared tier did not answer, so every replica fetches.
    Unknown,
}

/// Lease and stored value of one key at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseReply {
    /// The stored value, read after the lease was requested. If there is none and the lease is ours, no replica has
    /// fetched the key yet.
    pub stored: Option<Bytes>,
    /// State of the lease.
    pub standing: LeaseHolder,
}

impl LeaseReply {
    /// No stored value and no lease.
    pub const UNKNOWN: Self = Self { stored: None, standing: LeaseHolder::Unknown };
}

/// Leases on keys, shared by all processes that use a tier. A lease expires by itself, so a holder that crashes delays
/// the others only until then.
pub trait Leases: Send + Sync + Debug {
    /// Returns the shared tier.
    fn tier(&self) -> Tier;

    /// Returns how long a lease lasts if it is not released.
    fn length(&self) -> Duration;

    /// Requests the lease of each key that has none and reads the stored value. Implementations apply their own
    /// timeout.
    fn take<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Vec<LeaseReply>>;

    /// Releases leases of this process, each as soon as queued writes for its key are done. Never waits.
    fn release(&self, keys: &[Key]);
}
