//! The tier on this machine's disk.
//!
//! A store of its own: a log of segments ([`DiskStore`]), read through an index in memory. Cheap to write, exact in
//! size, quick to open, and nothing in it is believed that does not prove itself.

mod appender;
mod checksum;
mod each;
mod folder;
mod footer;
mod frame;
mod index;
mod keeper;
mod opening;
mod purges;
mod segment;
mod state;
mod store;
#[cfg(test)]
mod tests;
mod tier;

pub use folder::OpenError;
pub use keeper::DiskSettings;
pub use store::{Bounds, DiskStore, StoreStats};
pub use tier::{DiskParts, DiskTier};
