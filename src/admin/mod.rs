//! The ops port: metrics and probes for machines, figures and controls for operators.
//!
//! [`handle`] answers one request. It reaches the rest of the program through the traits of [`AdminContext`]; `guard`
//! decides about access.

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

use crate::observe::metrics::Metrics;
use crate::process::clock::Clock;

pub use dashboard::Feed;
pub use guard::{Guard, TOKEN_HEADER, is_local_authority};
pub use moving::{EXPORT_PATH, IMPORT_PATH};
pub use parts::{
    BoxError, BoxFuture, CacheControl, CacheCounters, ConfigView, Health, Imported, InForce, Machine, Memory, Moving,
    Pieces, Purged, TierStats, UnknownTier,
};
pub use reply::AdminBody;
pub use service::handle;

/// Handles of everything that the ops port reaches.
#[derive(Clone, Debug)]
pub struct AdminContext {
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// The caches.
    pub cache: Arc<dyn CacheControl>,
    /// Export and import of the cache.
    pub moving: Arc<dyn Moving>,
    /// Readiness and breaker state of the process.
    pub health: Arc<dyn Health>,
    /// The memory of the process.
    pub memory: Arc<dyn Memory>,
    /// The configuration in force.
    pub config: Arc<dyn ConfigView>,
    /// The machine or container.
    pub machine: Arc<dyn Machine>,
    /// Event feed for open dashboards.
    pub feed: Arc<Feed>,
    /// Access control.
    pub guard: Guard,
    /// Clock.
    pub clock: Clock,
    /// Largest request to explain, in bytes; set to the limit of embeddings bodies.
    pub max_explain_bytes: usize,
}

#[cfg(test)]
mod tests;
