//! Assembles all parts, starts and runs them, and stops them in order. Only this module knows every part.

mod advice;
mod batches;
mod components;
mod hooks;
mod instance;
mod introduction;
mod machine;
mod mock_upstream;
mod offline;
mod ops;
mod places;
mod reload;
mod surroundings;
mod tiers;
mod trust;

pub use advice::Advice;
pub use batches::{BatchCounts, BatchFiles, BatchSample, KeySettings, ReportLine};
pub use instance::{App, StartError, Stopped};
pub use introduction::{is_azure_root, payer, proxy_of_calls, warnings};
pub use machine::{disk_warning, memory_warning};
pub use offline::{OfflineCache, OfflineError};
pub use surroundings::Surroundings;
pub use trust::check_trust;
