//! Traits through which the ops port reaches the rest of the program without a dependency on it.

use std::fmt::Debug;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream;
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use crate::process::errors::BoxError;
use crate::process::system::Optimized;
pub use futures_util::future::BoxFuture;

/// The caches.
pub trait CacheControl: Send + Sync {
    /// Returns the state of each tier.
    fn tiers(&self) -> Vec<TierStats>;

    /// Removes entries: of one model or all, in one tier or all. Returns once the entries cannot return, even after a
    /// restart, or once it is certain that a tier cannot promise this yet. Blocks until then.
    fn purge(&self, model: Option<&str>, tier: Option<&str>) -> Result<Purged, UnknownTier>;

    /// Empties one tier below memory. Returns `None` if no tier has that name.
    fn clear_lower<'a>(&'a self, tier: &'a str) -> BoxFuture<'a, Option<Purged>>;

    /// Returns the sources of all answers to inputs since the start.
    fn counters(&self) -> CacheCounters;

    /// Explains what the cache would do with the request `body` sent to `path` with `headers`. Returns per input its
    /// key, the tier that holds it and its age, or why it cannot be cached.
    fn explain<'a>(&'a self, path: &'a str, headers: &'a HeaderMap, body: Bytes) -> BoxFuture<'a, Value>;
}

/// Result of a purge. In this process it takes effect before the response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Number of removed entries, as far as it is known.
    pub entries: u64,
    /// Tiers that could not store the purge yet. It is sent to them as soon as possible.
    pub pending: Vec<&'static str>,
    /// True if the pending purges survive a restart of the process.
    pub is_remembered: bool,
}

/// State of one tier. `hits`, `misses` and `evictions` count since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TierStats {
    /// Name of the tier; the key of the object in JSON.
    #[serde(skip)]
    pub name: &'static str,
    /// True if the tier works at this moment.
    pub up: bool,
    /// Cause if the tier does not work and the cause is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Entries held.
    pub entries: u64,
    /// Bytes held.
    pub bytes: u64,
    /// Capacity in bytes.
    pub capacity_bytes: u64,
    /// Lookups that found an entry.
    pub hits: u64,
    /// Lookups that found no entry.
    pub misses: u64,
    /// Entries evicted to make room.
    pub evictions: u64,
    /// Entries that were not written, because the queue was full or the tier was down.
    pub dropped: u64,
}

/// Number of inputs answered since the start, each counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CacheCounters {
    /// Answers from a tier.
    pub hits: u64,
    /// Answers from the upstream.
    pub misses: u64,
    /// Answers from a fetch that another request had started (single-flight).
    pub joined: u64,
    /// Answers from an expired entry because the upstream was unavailable.
    pub stale: u64,
    /// Answers from the mock embedder because the upstream was unavailable.
    pub mock: u64,
}

/// Error: no tier has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no tier `{0}`")]
pub struct UnknownTier(pub String);

/// Stream of the bytes of a file.
pub type Pieces<'a> = Pin<Box<dyn Stream<Item = Result<Bytes, BoxError>> + Send + 'a>>;

/// Export and import of the cache.
pub trait Moving: Send + Sync {
    /// Exports all records as one file.
    fn export(&self) -> BoxFuture<'_, Pieces<'static>>;

    /// Imports the export of another instance. The error explains why the file is not an export.
    fn import<'a>(&'a self, file: Pieces<'a>) -> BoxFuture<'a, Result<Imported, String>>;
}

/// Result of an import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Imported {
    /// Records imported.
    pub imported: u64,
    /// Records skipped because the existing one is as new or newer.
    pub known: u64,
    /// Records skipped because they have expired.
    pub expired: u64,
    /// Records skipped because they were purged in the meantime.
    pub purged: u64,
    /// Records skipped because they are less precise than this instance's codec allows.
    pub lossy: u64,
    /// Damaged places in the file, without a complete record.
    pub damaged: u64,
    /// Number of writes that a tier below memory dropped during the import because it was down or slow. A record that
    /// no tier has written exists only in memory.
    pub unwritten: u64,
    /// True if the file was complete and undamaged.
    pub whole: bool,
}

/// State of the process.
pub trait Health: Send + Sync {
    /// Returns true if the process accepts requests.
    fn ready(&self) -> bool;

    /// Returns true if the process is shutting down.
    fn draining(&self) -> bool;

    /// Returns `closed`, `half-open` or `open`.
    fn breaker(&self) -> &'static str;
}

/// The memory of the process.
pub trait Memory: Send + Sync {
    /// Returns the resident memory in bytes.
    fn resident_bytes(&self) -> u64;

    /// Returns the memory limit of the process in bytes.
    fn limit_bytes(&self) -> u64;

    /// Frees memory until at most `target_memory_mb` is resident, as far as possible.
    fn optimize(&self, target_memory_mb: u64) -> BoxFuture<'_, Optimized>;
}

/// The configuration in force.
pub trait ConfigView: Send + Sync {
    /// Returns every key with its value and the value's origin; secrets are redacted.
    fn effective(&self) -> Value;

    /// Returns the settings that the dashboard shows.
    fn in_force(&self) -> InForce;

    /// Changes the log level until the next start or reload. The error explains the fault in `level`.
    fn set_log_level(&self, level: &str) -> Result<(), String>;

    /// Returns the log level in force.
    fn log_level(&self) -> String;
}

/// Settings that the dashboard shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InForce {
    /// `upstream.url`
    pub upstream_url: String,
    /// `fallback.mode`
    pub fallback_mode: &'static str,
}

/// The machine or container.
pub trait Machine: Send + Sync {
    /// Returns the number of processors available to the process.
    fn cpu_count(&self) -> usize;

    /// Returns the percentage of memory in use, 0 to 100.
    fn memory_percent(&self) -> f64;

    /// Returns the available memory in units of 2^30 bytes.
    fn available_memory_gb(&self) -> f64;
}

macro_rules! opaque_debug {
    ($($part:ident),+) => {
        $(impl Debug for dyn $part {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(stringify!($part))
            }
        })+
    };
}

opaque_debug!(CacheControl, Moving, Health, Memory, ConfigView, Machine);
