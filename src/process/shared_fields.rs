//! Small texts that replicas share.
//!
//! Each replica writes fields of its own and reads those of all. A value is absolute, so a write whose answer was lost
//! may be repeated, and a store that lost its data is complete again after one round.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::BoxFuture;

/// Fields by name: the name of a replica is part of each.
pub type ReplicaFields = BTreeMap<String, String>;

/// A store of fields that several replicas reach.
pub trait SharedFields: Send + Sync {
    /// Writes the fields of this replica into a table, which is kept for `kept_for` after the last write, and removes the
    /// fields of these names. Returns the fields of all replicas. The error is the cause, as text.
    fn exchange<'a>(
        &'a self,
        table: &'a str,
        fields: (&'a ReplicaFields, &'a [String]),
        kept_for: Duration,
    ) -> BoxFuture<'a, Result<ReplicaFields, String>>;
}
