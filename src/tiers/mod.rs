//! Where vectors are kept. Every tier holds [`Record`]s under [`crate::key::Key`]s; the stack asks them in order.

pub mod at_rest;
mod memory;
mod record;
mod stack;

pub use memory::MemoryTier;
pub use record::{Age, Record, Times};
pub use stack::{Found, Lookup, Stack, Tier};
