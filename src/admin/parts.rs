//! What the ops port asks of the rest of the program, as traits, so that it knows no other part.

use std::error::Error;
use std::fmt::Debug;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream;
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::system::Optimized;
pub use crate::tasks::Eventually;

/// The caches.
pub trait CacheControl: Send + Sync {
    /// The size of each tier.
    fn tiers(&self) -> Vec<TierStats>;

    /// Lets entries go: of one model or of all, in one tier or in all. Returns once they cannot come back any more, not
    /// even after a restart, or once it is certain where that cannot be promised yet. Blocks meanwhile.
    fn purge(&self, model: Option<&str>, tier: Option<&str>) -> Result<Purged, UnknownTier>;

    /// Empties one tier below memory; nothing where there is none of that name.
    fn clear_lower<'a>(&'a self, tier: &'a str) -> Eventually<'a, Option<Purged>>;

    /// Where answers to inputs came from since the start.
    fn counters(&self) -> CacheCounters;

    /// What would happen to the request `body` sent to `path` with `headers`: per input its key, the tier that
    /// holds it and its age, or why it cannot be cached.
    fn explain<'a>(&'a self, path: &'a str, headers: &'a HeaderMap, body: Bytes) -> Eventually<'a, Value>;
}

/// What a purge did. In this process it holds from the moment it is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Entries that went, as far as they can be counted.
    pub entries: u64,
    /// Tiers that could not be told yet. They are told as soon as they can be.
    pub pending: Vec<&'static str>,
    /// Whether a process that is started anew knows what is pending.
    pub is_remembered: bool,
}

/// One tier at one moment. `hits`, `misses` and `evictions` count since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TierStats {
    /// Its name; the key of the object in JSON.
    #[serde(skip)]
    pub name: &'static str,
    /// Whether it works at this moment.
    pub up: bool,
    /// Why it does not, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Entries held.
    pub entries: u64,
    /// Bytes held.
    pub bytes: u64,
    /// Bytes that may be held.
    pub capacity_bytes: u64,
    /// Look-ups that found something.
    pub hits: u64,
    /// Look-ups that found nothing.
    pub misses: u64,
    /// Entries let go to make room.
    pub evictions: u64,
    /// Entries that were not written: too many waited, or the tier was down.
    pub dropped: u64,
}

/// Inputs answered since the start, each counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CacheCounters {
    /// From a tier.
    pub hits: u64,
    /// From the upstream.
    pub misses: u64,
    /// From a fetch that another request had started.
    pub joined: u64,
    /// From an entry past its time, for want of the upstream.
    pub stale: u64,
    /// From the mock embedder, for want of the upstream.
    pub mock: u64,
}

/// There is no tier of that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no tier `{0}`")]
pub struct UnknownTier(pub String);

/// Bytes of a file, as they come.
pub type Pieces<'a> = Pin<Box<dyn Stream<Item = Result<Bytes, BoxError>> + Send + 'a>>;

/// An error of any kind, as bodies have it.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// What leaves for another instance, and what comes from one.
pub trait Moving: Send + Sync {
    /// All that is kept, as one file.
    fn export(&self) -> Eventually<'_, Pieces<'static>>;

    /// Takes in what another instance exported; the error says why this is no such file.
    fn import<'a>(&'a self, file: Pieces<'a>) -> Eventually<'a, Result<Imported, String>>;
}

/// What became of a file that was taken in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Imported {
    /// Records that are kept now.
    pub imported: u64,
    /// Records left out, since what is there is as new, or newer.
    pub known: u64,
    /// Records left out, since their time is over.
    pub expired: u64,
    /// Records left out, since a purge came in between.
    pub purged: u64,
    /// Records left out, since they have lost more than the codec of this instance lets go.
    pub lossy: u64,
    /// Places in the file that hold no whole record.
    pub damaged: u64,
    /// How often a tier below memory did not take a record meanwhile, being down or slow. What no tier takes is in
    /// memory alone.
    pub unwritten: u64,
    /// Whether the file came to its end, with nothing damaged or missing.
    pub whole: bool,
}

/// Whether the process does its work.
pub trait Health: Send + Sync {
    /// Whether requests are accepted.
    fn ready(&self) -> bool;

    /// Whether the process is on its way out.
    fn draining(&self) -> bool;

    /// `closed`, `half-open` or `open`.
    fn breaker(&self) -> &'static str;
}

/// The memory of the process.
pub trait Memory: Send + Sync {
    /// Resident memory now.
    fn resident_bytes(&self) -> u64;

    /// What the process stays under.
    fn limit_bytes(&self) -> u64;

    /// Frees memory until at most `target_memory_mb` is resident, as far as that can be done.
    fn optimize(&self, target_memory_mb: u64) -> Eventually<'_, Optimized>;
}

/// The configuration in force.
pub trait ConfigView: Send + Sync {
    /// Every key with its value and where that came from, secrets redacted.
    fn effective(&self) -> Value;

    /// What of it the dashboard shows.
    fn in_force(&self) -> InForce;

    /// Changes the log level until the next start or reload; the error says what is wrong with `level`.
    fn set_log_level(&self, level: &str) -> Result<(), String>;

    /// The log level in force.
    fn log_level(&self) -> String;
}

/// What the dashboard shows of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InForce {
    /// `upstream.url`
    pub upstream_url: String,
    /// `fallback.mode`
    pub fallback_mode: &'static str,
}

/// The machine, or the container, around the process.
pub trait Machine: Send + Sync {
    /// Processors that may be used.
    fn cpu_count(&self) -> usize;

    /// Share of the memory that is in use, 0 to 100.
    fn memory_percent(&self) -> f64;

    /// Memory that can still be had, in units of 2^30 bytes.
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
