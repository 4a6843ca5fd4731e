//! The tier on the local disk.
//!
//! It uses a log-structured store of its own, [`DiskStore`]: segments on disk and an index in memory. Writes are
//! cheap, the size limit is exact, opening is quick, and every read is verified by checksum.

mod appender;
mod bounds;
mod checksum;
mod each;
mod erase;
mod folder;
mod footer;
mod frame;
mod index;
mod opening;
mod probe;
mod purges;
mod purging;
mod segment;
mod state;
mod store;
#[cfg(test)]
mod tests;
mod tier;
mod unerased;
mod worker;

pub use bounds::DiskBounds;
pub use folder::OpenError;
pub use probe::{FolderState, inspect};
pub use store::{DiskStore, StoreStats};
pub use tier::{DiskParts, DiskTier};
pub use worker::DiskSettings;
