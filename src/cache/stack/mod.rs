//! The tiers in the order they are queried: memory at once, then those below it, each once for all keys.

mod damage;
mod lookup;
mod moving;
mod notes;
mod purging;
mod tiers;

#[cfg(test)]
mod moving_up_tests;
#[cfg(test)]
mod tests;

pub use lookup::{Found, LeaseLookup, Lookup};
pub use moving::{Arrivals, ImportOutcome};
pub use purging::Purge;
pub use tiers::Stack;
