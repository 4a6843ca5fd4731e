//! The ops port: metrics and probes for machines, figures and switches for people.
//!
//! [`handle`] answers one request. It reaches what it shows and steers through the traits of [`AdminContext`];
//! `guard` decides who has access.

mod body;
mod cache;
mod dashboard;
mod guard;
mod health;
mod moving;
mod parts;
mod performance;
mod reply;
mod savings;
mod service;
mod settings;

use std::sync::Arc;

use crate::clock::Clock;
use crate::metrics::Metrics;

pub use dashboard::Feed;
pub use guard::{Guard, TOKEN_HEADER, is_local_authority};
pub use moving::{EXPORT_PATH, IMPORT_PATH};
pub use parts::{
    BoxError, CacheControl, CacheCounters, ConfigView, Eventually, Health, Imported, InForce, Machine, Memory, Moving,
    Pieces, Purged, TierStats, UnknownTier,
};
pub use reply::AdminBody;
pub use service::handle;

/// Everything the ops port reaches.
#[derive(Clone, Debug)]
pub struct AdminContext {
    /// The numbers.
    pub metrics: Arc<Metrics>,
    /// The caches.
    pub cache: Arc<dyn CacheControl>,
    /// What leaves for another instance, and what comes from one.
    pub moving: Arc<dyn Moving>,
    /// Whether the process does its work.
    pub health: Arc<dyn Health>,
    /// The memory of the process.
    pub memory: Arc<dyn Memory>,
    /// The configuration in force.
    pub config: Arc<dyn ConfigView>,
    /// The machine around the process.
    pub machine: Arc<dyn Machine>,
    /// What open dashboards are told.
    pub feed: Arc<Feed>,
    /// Access control.
    pub guard: Guard,
    /// The time of day.
    pub clock: Clock,
    /// Largest request that is explained, in bytes; as large as the largest embeddings body makes sense.
    pub max_explain_bytes: usize,
}

#[cfg(test)]
mod tests;
