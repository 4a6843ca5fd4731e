//! Lease that lets one of several replicas at a time ask for vecho's own texts.

use std::sync::Arc;

use crate::cache::{LeaseEnd, LeaseHolder, Leases};
use crate::key::Key;

/// Lease on the last key of vecho's own texts. It is released when dropped, after the record of the key is written.
pub(super) struct TextsLease {
    held: Option<(Arc<dyn Leases>, Key)>,
}

impl TextsLease {
    /// Requests the lease. Returns `None` while another replica holds it. Without a store, or if the store does not
    /// answer, each replica asks.
    pub(super) async fn request(store: Option<&Arc<dyn Leases>>, keys: &[Key]) -> Option<Self> {
        // The last key, because its record is written last.
        let (Some(store), Some(key)) = (store, keys.last()) else { return Some(Self { held: None }) };
        let reply = store.take(&[*key], None).await.pop();
        match reply.map_or(LeaseHolder::Unknown, |reply| reply.standing) {
            LeaseHolder::Theirs(_) => None,
            LeaseHolder::Ours => Some(Self { held: Some((Arc::clone(store), *key)) }),
            LeaseHolder::Failed | LeaseHolder::Unknown => Some(Self { held: None }),
        }
    }
}

impl Drop for TextsLease {
    fn drop(&mut self) {
        if let Some((store, key)) = &self.held {
            store.release(&[*key], LeaseEnd::GivenUp);
        }
    }
}
