//! The cache, its tiers and who shares it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;

use super::TlsConfig;
use crate::config::Secret;
use crate::vector::packed::Codec;

/// Shortest time for which a forgotten key is remembered. A job of the Batch API ends within a day.
const FORGOTTEN_FOR_MIN: Duration = Duration::from_hours(48);

/// `[cache]`
#[derive(Clone, Debug)]
pub struct CacheConfig {
    /// `cache.ttl`.
    pub ttl: Duration,
    /// `cache.stale_for`.
    pub stale_for: Duration,
    /// `cache.max_entries`.
    pub max_entries: Option<u64>,
    /// `cache.scope`.
    pub scope: Scope,
    /// `cache.key_secret`.
    pub key_secret: Option<Secret>,
    /// `cache.extra_fields`.
    pub extra_fields: BTreeSet<String>,
    /// `cache.key_headers`.
    pub key_headers: Vec<HeaderName>,
    /// `cache.same_models`.
    pub same_models: BTreeMap<String, String>,
    /// `cache.derive_dimensions`.
    pub derive_dimensions: bool,
    /// `cache.codec`.
    pub codec: Codec,
    /// `cache.memory_percent`.
    pub memory_percent: u64,
    /// `cache.answers_percent`.
    pub answers_percent: u64,
}

impl CacheConfig {
    /// Returns the time in milliseconds for which a forgotten key is remembered. Its earlier entries have expired by
    /// then, and a job of the Batch API that began before has ended a day ago.
    pub fn forgotten_for_ms(&self) -> u64 {
        let remembered = self.ttl.saturating_add(self.stale_for).max(FORGOTTEN_FOR_MIN);
        u64::try_from(remembered.as_millis()).unwrap_or(u64::MAX)
    }
}

/// `cache.scope`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One space per credential.
    Credential,
    /// One space for all callers; vecho holds the key.
    Proxy,
    /// One space for all credentials that the upstream has accepted.
    Shared,
}

/// `[disk]`
#[derive(Clone, Debug)]
pub struct DiskConfig {
    /// `disk.enabled`.
    pub enabled: bool,
    /// `disk.path`.
    pub path: Option<PathBuf>,
    /// `disk.max_mb`, in bytes.
    pub max_bytes: u64,
    /// `disk.queue_mb`, in bytes.
    pub queue_bytes: usize,
    /// `disk.off_for`.
    pub off_for: Duration,
}

/// `[redis]`
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// Nodes of `redis.url`; empty without the tier.
    pub nodes: Vec<RedisNode>,
    /// `redis.cluster`.
    pub cluster: bool,
    /// `redis.username`.
    pub username: Option<String>,
    /// `redis.password`.
    pub password: Option<Secret>,
    /// `redis.key_prefix`.
    pub key_prefix: String,
    /// `redis.ca_file`.
    pub ca_file: Option<PathBuf>,
    /// `redis.cert_file` and `redis.key_file`.
    pub identity: Option<TlsConfig>,
    /// `redis.timeout`.
    pub timeout: Duration,
    /// `redis.connect_timeout`.
    pub connect_timeout: Duration,
    /// `redis.queue_mb`, in bytes.
    pub queue_bytes: usize,
    /// `redis.lease`.
    pub lease: LeaseMode,
}

/// Length of the leases on keys that replicas share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseMode {
    /// No leases: each replica fetches for itself.
    Off,
    /// A fixed length, without renewal.
    Fixed(Duration),
    /// A length that follows the usual time of calls, with renewal while a call lasts.
    Auto,
}

/// One address in `redis.url`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisNode {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// True if the node uses TLS.
    pub tls: bool,
    /// Database number.
    pub database: i64,
}

/// `[auth]`
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// `auth.vouch_ttl`.
    pub vouch_ttl: Duration,
    /// `auth.identity`.
    pub identity: CallerIdentity,
    /// `auth.credential_headers`.
    pub credential_headers: Vec<HeaderName>,
}

/// `auth.identity`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallerIdentity {
    /// The credential headers.
    Header,
    /// The claims of the bearer token, with the other credential headers.
    Token,
}
