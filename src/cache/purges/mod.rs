//! Purges: counts that outlive the process and are shared between processes, and generations for data in flight.

mod counts;
mod generation;

pub use counts::{EVERYTHING, MAX_COUNT, PurgeCounts, PurgeRegistry, SavedPurges, UnsentPurges};
pub use generation::{Generation, Generations};
