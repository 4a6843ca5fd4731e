//! Every place where vectors are kept. The tiers hold [`Record`]s under [`crate::key::Key`]s: memory, then disk and
//! Redis. The [`Stack`] queries them in order. The reply cache holds finished bodies. Exports move records between
//! instances.

pub mod at_rest;
pub mod bounded;
pub mod disk;
pub mod export;
mod leases;
mod lower;
mod memory;
pub mod purges;
mod record;
pub mod redis;
pub mod reply_cache;
mod stack;
mod tier;
mod writer;

pub use leases::{LeaseHolder, LeaseReply, Leases};
pub use lower::{AtRest, Durability, LowerStats, LowerTier};
pub use memory::MemoryTier;
pub use record::{Age, Record, Times};
pub use stack::{Arrivals, Found, ImportOutcome, Lookup, Purge, Stack};
pub use tier::Tier;
pub use writer::{Batch, BatchLimits, Queued, WriteQueue};
