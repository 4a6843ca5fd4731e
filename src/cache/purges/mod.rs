//! Purges: counts that outlive the process and are shared between processes, and generations for data in flight.

mod counts;
mod forgotten;
mod generation;
mod job_start;
mod subject;

pub use counts::{EVERYTHING, MAX_NAMES, PurgeCounts, PurgeNews, PurgeRegistry, SavedPurges, UnsentPurges};
pub use forgotten::{ForgottenKeys, ForgottenRegistry, MAX_COUNT, MAX_FORGOTTEN, PurgeStamp, TOO_MANY_FORGOTTEN};
pub use generation::{Generation, Generations};
pub use job_start::JobStart;
pub use subject::PurgeSubject;
