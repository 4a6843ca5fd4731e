//! Storage of vectors. Every tier holds [`Record`]s under [`crate::key::Key`]s, and the stack queries them in order.

pub mod at_rest;
pub mod disk;
mod leases;
mod lower;
mod memory;
mod record;
pub mod redis;
mod stack;
mod writer;

pub use leases::{Leases, Sight, Standing};
pub use lower::{AtRest, Eventually, LowerStats, LowerTier, Settled};
pub use memory::MemoryTier;
pub use record::{Age, Record, Times};
pub use stack::{Arrivals, Fate, Found, Lookup, Purge, Stack, Tier};
pub use writer::{Batch, Queued, WriteQueue};
