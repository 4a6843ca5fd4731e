//! Interface of the tiers below memory, and the extension point for a further tier: implement [`LowerTier`], add a
//! [`Tier`], and let `app` put it into the stack. A tier may answer slowly or not at all, but never with an error.

use std::fmt::Debug;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::cache::purges::{PurgeRegistry, PurgeSubject};
use crate::key::Key;
use crate::observe::metrics::{Tier, TierStats};
use futures_util::future::BoxFuture;

/// Encoded record, as [`super::at_rest`] writes it. Tiers do not look into the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtRest {
    /// The encoded record.
    pub bytes: Bytes,
    /// Expiry time in milliseconds since the Unix epoch.
    pub until_ms: u64,
}

/// Durability of a purge in a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The purge is final, even if this process ends now.
    ForGood,
    /// The purge is final, but entries of forgotten inputs are still on the medium. They are never served.
    Unerased,
    /// The tier cannot be reached. This process serves nothing that was purged, and tells the tier as soon as possible.
    Pending,
}

/// A tier below memory.
pub trait LowerTier: Send + Sync + Debug {
    /// Returns which tier this is.
    fn tier(&self) -> Tier;

    /// Returns true if other replicas share the tier, so it may hold records that this process has never seen. By
    /// default it belongs to this process alone.
    fn is_shared(&self) -> bool {
        false
    }

    /// Returns true if the tier outlives the process and also stores the purges that other tiers have yet to receive.
    /// By default it stores none.
    fn remembers_purges(&self) -> bool {
        false
    }

    /// Returns the value of each of `keys`, in order. A tier that is down, slow, full or damaged returns `None` within
    /// its own timeout. Entries that are queued for writing are found.
    fn get<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Vec<Option<Bytes>>>;

    /// Queues an entry to be written, or drops it if the queue is full. Never waits.
    fn put(&self, key: Key, entry: AtRest);

    /// Adds an unsent purge, which is counted in the [`PurgeRegistry`]: other replicas do not know it yet.
    /// It runs before [`LowerTier::purged`] of any tier, so the unsent purge is saved with the purge.
    ///
    /// By default nothing is added, which suffices for a tier of one process. A tier that replicas share must implement
    /// this: otherwise a purge that it could not receive at once is lost with the process.
    fn add_unsent(&self, subject: &PurgeSubject) {
        let _ = subject;
    }

    /// Handles a purge that is counted in the [`PurgeRegistry`]. Resolves once the purge survives this process and has
    /// reached all replicas that share the tier, or once it is certain that it cannot. Entries of forgotten inputs leave
    /// the medium; the answer is their number, as far as they have left it by now. For other purges, whose entries may stay until they are evicted, it is 0.
    fn purged<'a>(
        &'a self,
        purges: &'a Arc<PurgeRegistry>,
        subject: &'a PurgeSubject,
    ) -> BoxFuture<'a, (u64, Durability)>;

    /// Records purges that are about to be learned, and that the [`PurgeRegistry`] already lists as expected. A tier
    /// that outlives the process saves them. Resolves once that is done or a short timeout has passed.
    fn note_ahead(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Removes all entries from this tier, for all replicas that share it. Returns how many there were, if known.
    fn clear(&self) -> BoxFuture<'_, (u64, Durability)>;

    /// Passes every entry to `visit` until it breaks, if the tier belongs to this process alone. Blocks.
    fn each(&self, visit: &mut dyn FnMut(&Key, &[u8]) -> ControlFlow<()>) -> ControlFlow<()> {
        let _ = visit;
        ControlFlow::Continue(())
    }

    /// Resolves once the write queue is empty or nothing can be written.
    fn drained(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Returns the statistics of the tier.
    fn stats(&self) -> TierStats;

    /// Writes out the queue, for at most `timeout`. Returns the number of entries left.
    fn close(&self, timeout: Duration) -> BoxFuture<'_, usize>;
}
