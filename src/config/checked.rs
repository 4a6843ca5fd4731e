//! The checked configuration: typed, complete and consistent. A value that must exist is never optional.
//!
//! Fields name their keys. [`KEYS`](super::KEYS) describes them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderMap, HeaderName, Uri};

use super::logging::LogFormat;
use super::{Effective, LongInputRules, SavingsConfig, Secret};
use crate::vector::packed::Codec;

/// The whole configuration after all checks.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address of the public port.
    pub listen: SocketAddr,
    /// Address of the ops port.
    pub admin_listen: SocketAddr,
    /// Threads of the runtime.
    pub workers: usize,
    /// The upstream service.
    pub upstream: UpstreamConfig,
    /// Batching of misses.
    pub batch: BatchConfig,
    /// Retries of failed calls.
    pub retry: RetryConfig,
    /// Circuit breaker for calls.
    pub breaker: BreakerConfig,
    /// Answers while the upstream is unavailable.
    pub fallback: FallbackConfig,
    /// Contents, sharing and lifetime of the cache.
    pub cache: CacheConfig,
    /// The disk tier.
    pub disk: DiskConfig,
    /// The Redis or Valkey tier.
    pub redis: RedisConfig,
    /// Credentials of callers.
    pub auth: AuthConfig,
    /// Limits for clients.
    pub limits: LimitsConfig,
    /// Limits of the process.
    pub memory: MemoryConfig,
    /// TLS on the public port.
    pub tls: Option<TlsConfig>,
    /// The ops port.
    pub admin: AdminConfig,
    /// Prices of tokens.
    pub savings: SavingsConfig,
    /// Logging.
    pub log: LogConfig,
    /// Request traces.
    pub traces: TracesConfig,
    /// Configuration reloads.
    pub reload: ReloadConfig,
    /// Shutdown.
    pub shutdown: ShutdownConfig,
    /// Every key with its displayed value and the value's origin.
    pub effective: Effective,
}

/// `[upstream]`
#[derive(Clone, Debug)]
pub struct UpstreamConfig {
    /// `upstream.url`.
    pub target: UpstreamTarget,
    /// `upstream.api_key`.
    pub api_key: Option<Secret>,
    /// `upstream.api_key_header`.
    pub api_key_header: KeyHeader,
    /// `upstream.encoding`.
    pub encoding: UpstreamEncoding,
    /// `upstream.max_concurrent`.
    pub max_concurrent: usize,
    /// `upstream.connect_timeout`.
    pub connect_timeout: Duration,
    /// `upstream.headers_timeout`.
    pub headers_timeout: Option<Duration>,
    /// `upstream.call_timeout`.
    pub call_timeout: Duration,
    /// `upstream.idle_timeout`.
    pub idle_timeout: Duration,
    /// `upstream.max_connection_age`.
    pub max_connection_age: Duration,
    /// `upstream.max_answer_bytes`.
    pub max_answer_bytes: usize,
    /// `upstream.ca_file`.
    pub ca_file: Option<PathBuf>,
}

/// The service behind vecho.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamTarget {
    /// A server: scheme, authority and base path, as in an application's `OPENAI_BASE_URL`.
    Http(Uri),
    /// The built-in mock embedder (`mock:`), without a network.
    Mock,
}

/// Formats the target as in `upstream.url`.
impl fmt::Display for UpstreamTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(uri) => uri.fmt(f),
            Self::Mock => f.write_str("mock:"),
        }
    }
}

/// Header for the API key that vecho holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyHeader {
    /// `authorization: Bearer <key>`
    Authorization,
    /// `api-key: <key>`, as Azure requires
    ApiKey,
}

/// `upstream.encoding`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamEncoding {
    /// base64 if the vectors are known to be f32, otherwise as the caller requested.
    Auto,
    /// The encoding that the caller requested.
    AsAsked,
    /// Always base64.
    Base64,
    /// Always decimal numbers.
    Float,
}

/// `[batch]`
#[derive(Clone, Debug)]
pub struct BatchConfig {
    /// `batch.max_inputs`.
    pub max_inputs: usize,
    /// `batch.max_tokens`.
    pub max_tokens: usize,
    /// `batch.target_time`.
    pub target_time: Duration,
}

/// `[retry]`
#[derive(Clone, Debug)]
pub struct RetryConfig {
    /// `retry.max_attempts`.
    pub max_attempts: u32,
    /// `retry.base_wait`.
    pub base_wait: Duration,
    /// `retry.max_wait`.
    pub max_wait: Duration,
    /// `retry.budget_ratio`.
    pub budget_ratio: f64,
}

/// `[breaker]`
#[derive(Clone, Debug)]
pub struct BreakerConfig {
    /// `breaker.failures`.
    pub failures: u32,
    /// `breaker.open_for`.
    pub open_for: Duration,
    /// `breaker.max_open`.
    pub max_open: Duration,
}

/// `[fallback]`
#[derive(Clone, Debug)]
pub struct FallbackConfig {
    /// `fallback.mode`.
    pub mode: FallbackMode,
    /// `fallback.mock_dimensions`.
    pub mock_dimensions: usize,
}

/// Allowed fallback answers; each mode includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FallbackMode {
    /// Only the error.
    Error,
    /// An expired entry, otherwise the error.
    Stale,
    /// An expired entry, otherwise a marked mock.
    Mock,
}

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
    /// `redis.lease`; `None` at zero.
    pub lease: Option<Duration>,
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
    /// `auth.credential_headers`.
    pub credential_headers: Vec<HeaderName>,
}

/// `[limits]`
#[derive(Clone, Debug)]
pub struct LimitsConfig {
    /// `limits.max_header_bytes`.
    pub max_header_bytes: usize,
    /// `limits.header_timeout`.
    pub header_timeout: Duration,
    /// `limits.idle_timeout`.
    pub idle_timeout: Duration,
    /// `limits.body_timeout`.
    pub body_timeout: Duration,
    /// `limits.max_body_bytes`.
    pub max_body_bytes: usize,
    /// `limits.request_timeout`.
    pub request_timeout: Duration,
    /// `limits.max_connections`.
    pub max_connections: usize,
    /// `limits.max_requests`.
    pub max_requests: usize,
    /// `limits.max_inflight_bytes`.
    pub max_inflight_bytes: usize,
    /// `limits.long_input`.
    pub long_input: LongInputRules,
}

/// `[memory]`
#[derive(Clone, Debug)]
pub struct MemoryConfig {
    /// `memory.limit_mb`, in bytes.
    pub limit_bytes: u64,
    /// `memory.check_every`.
    pub check_every: Duration,
}

/// `[tls]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// Certificate chain, PEM.
    pub cert_file: PathBuf,
    /// Private key, PEM.
    pub key_file: PathBuf,
}

/// `[admin]`
#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// `admin.token`.
    pub token: Option<Secret>,
}

/// `[log]`
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// `log.level`.
    pub level: String,
    /// `log.format`.
    pub format: LogFormat,
}

/// `[traces]`
#[derive(Clone, Debug)]
pub struct TracesConfig {
    /// `traces.url`, or the URL below `traces.endpoint`; `None` without traces.
    pub target: Option<Uri>,
    /// `traces.headers`, marked as sensitive.
    pub headers: Option<HeaderMap>,
    /// `traces.sample_ratio`.
    pub sample_ratio: f64,
    /// `traces.resource` with `service.name`.
    pub resource: BTreeMap<String, String>,
    /// `traces.timeout`.
    pub timeout: Duration,
    /// `traces.send_every`.
    pub send_every: Duration,
    /// `traces.queue_spans`.
    pub queue_spans: usize,
    /// `traces.ca_file`.
    pub ca_file: Option<PathBuf>,
}

/// `[reload]`
#[derive(Clone, Debug)]
pub struct ReloadConfig {
    /// `reload.poll_every`.
    pub poll_every: Duration,
}

/// `[shutdown]`
#[derive(Clone, Debug)]
pub struct ShutdownConfig {
    /// `shutdown.grace`.
    pub grace: Duration,
}
