//! Every place where vectors are kept. The tiers hold [`Record`]s under [`crate::key::Key`]s: memory, then disk and
//! Redis. The [`Stack`] queries them in order. The reply cache holds finished bodies. Exports move records between
//! instances.

pub mod at_rest;
pub mod bounded;
mod caches;
pub mod disk;
pub mod export;
mod leases;
mod lower;
mod map_stats;
mod memory;
pub mod purges;
mod record;
pub mod redis;
pub mod reply_cache;
mod stack;
pub mod transfer;
mod writer;

pub use crate::observe::metrics::{Tier, TierStats};
pub use caches::{Caches, ForgetOrder, Forgotten, NoRoom, Purged};
pub use leases::{ForeignLease, LeaseEnd, LeaseHolder, LeaseReply, LeasedFetch, LeasedValues, Leases};
pub use lower::{AtRest, Durability, LowerTier};
pub use memory::MemoryTier;
pub use record::{Age, Record, Times};
pub use stack::{Arrivals, Found, ImportOutcome, LeaseLookup, Lookup, Purge, Stack};
pub use writer::{BatchLimits, Queued, WriteBatch, WriteQueue};
