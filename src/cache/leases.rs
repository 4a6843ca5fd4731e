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
    /// Another fetch holds the lease for now.
    Theirs(ForeignLease),
    /// The fetch of another process failed a moment ago, so every replica fetches.
    Failed,
    /// The shared tier did not answer, so every replica fetches.
    Unknown,
}

/// Lease of another fetch, as far as its value tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForeignLease {
    /// The fetch that holds it.
    pub fetch: Option<LeasedFetch>,
    /// Usual duration of a call of the holder.
    pub call_time: Option<Duration>,
}

/// Identity of a fetch among all processes that use a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeasedFetch {
    /// Random number of the process.
    pub process: u128,
    /// Number of the fetch in its process.
    pub number: u64,
}

/// Lease and stored value of one key at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseReply {
    /// The stored value at the moment when the lease was requested. If there is none and the lease is ours, no replica
    /// has fetched the key yet.
    pub stored: Option<Bytes>,
    /// State of the lease.
    pub standing: LeaseHolder,
}

/// Values of a look-up that also took leases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeasedValues {
    /// The stored value of each key.
    pub values: Vec<Option<Bytes>>,
    /// True if values were left unread, because together they exceed memory.
    pub has_unread: bool,
}

impl LeaseReply {
    /// No stored value and no lease.
    pub const UNKNOWN: Self = Self { stored: None, standing: LeaseHolder::Unknown };
}

/// End of a fetch, as the waiting replicas learn of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseEnd {
    /// The vector was fetched. The lease ends once a queued write of it is done.
    Fetched,
    /// The upstream refused the input or failed. The waiting replicas ask for themselves, all at once.
    Failed,
    /// The holder did not call the upstream. One of the waiting replicas takes the lease.
    GivenUp,
}

/// Leases on keys, shared by all processes that use a tier. A lease expires by itself, so a holder that crashes delays
/// the others only until then.
pub trait Leases: Send + Sync + Debug {
    /// Returns the shared tier.
    fn tier(&self) -> Tier;

    /// Returns how long a fetch waits for leases of others, whose calls usually take `call_time`.
    fn longest_wait(&self, call_time: Option<Duration>) -> Duration;

    /// Reads the stored value of each key, and requests the lease of each missing one. `unleased` keys at the end are
    /// only read. A lease that is granted waits for a fetch, which gets it by [`Leases::take`], or for
    /// [`Leases::give_back`]. Implementations apply their own timeout.
    fn look_up<'a>(
        &'a self,
        keys: &'a [Key],
        unleased: usize,
        call_time: Option<Duration>,
    ) -> BoxFuture<'a, LeasedValues>;

    /// Gives back the leases of a look-up that no fetch has got. Never waits.
    fn give_back(&self, keys: &[Key]);

    /// Returns the leases that a look-up has taken, for a fetch that gets no others. Never waits.
    fn claim(&self, keys: &[Key]) -> Vec<LeaseReply>;

    /// Requests the lease of each key that has none and reads the stored value. The length of the leases follows
    /// `call_time`, the usual duration of a call. Implementations apply their own timeout.
    fn take<'a>(&'a self, keys: &'a [Key], call_time: Option<Duration>) -> BoxFuture<'a, Vec<LeaseReply>>;

    /// Releases leases of this process. Never waits.
    fn release(&self, keys: &[Key], end: LeaseEnd);
}
