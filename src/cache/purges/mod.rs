//! Purges: counts that outlive the process and are shared between processes, and generations for data in flight.

mod counts;
mod generation;

pub use counts::{Debts, EVERYTHING, Epochs, MAX_COUNT, Noted, PurgeCounts};
pub use generation::{Generation, Generations};
