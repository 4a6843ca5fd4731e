//! The checked configuration: typed, complete and consistent. A value that must exist is never optional.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderMap, HeaderName, Uri};

use super::logging::LogFormat;
use super::{Effective, Savings, Secret};
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
    pub upstream: Upstream,
    /// Batching of misses.
    pub batch: Batch,
    /// Retries of failed calls.
    pub retry: Retry,
    /// Circuit breaker for calls.
    pub breaker: Breaker,
    /// Answers while the upstream is unavailable.
    pub fallback: Fallback,
    /// Contents, sharing and lifetime of the cache.
    pub cache: Cache,
    /// The disk tier.
    pub disk: Disk,
    /// The Redis or Valkey tier.
    pub redis: Redis,
    /// Credentials of callers.
    pub auth: Auth,
    /// Limits for clients.
    pub limits: Limits,
    /// Limits of the process.
    pub memory: Memory,
    /// TLS on the public port.
    pub tls: Option<Tls>,
    /// The ops port.
    pub admin: Admin,
    /// Prices of tokens.
    pub savings: Savings,
    /// Logging.
    pub log: Log,
    /// Request traces.
    pub traces: Traces,
    /// Configuration reloads.
    pub reload: Reload,
    /// Shutdown.
    pub shutdown: Shutdown,
    /// Every key with its displayed value and the value's origin.
    pub effective: Effective,
}

/// `[upstream]`
#[derive(Clone, Debug)]
pub struct Upstream {
    /// The service to call.
    pub target: UpstreamTarget,
    /// The API key that vecho holds and sends in place of the caller's.
    pub api_key: Option<Secret>,
    /// The header that carries this key.
    pub api_key_header: KeyHeader,
    /// The encoding requested from the upstream.
    pub encoding: Encoding,
    /// Maximum number of embedding calls in flight.
    pub max_concurrent: usize,
    /// Timeout for DNS, TCP and TLS together.
    pub connect_timeout: Duration,
    /// Minimum timeout for the response headers of a call; without it a call waits as long as its requests.
    pub headers_timeout: Option<Duration>,
    /// Timeout of one embeddings call, including the response body.
    pub call_timeout: Duration,
    /// Lifetime of an unused connection.
    pub idle_timeout: Duration,
    /// Time for which a connection accepts new requests.
    pub max_connection_age: Duration,
    /// Largest embeddings response that is read, in bytes.
    pub max_answer_bytes: usize,
    /// Additional trusted roots, PEM.
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
pub enum Encoding {
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
pub struct Batch {
    /// Maximum number of inputs in one call.
    pub max_inputs: usize,
    /// Maximum number of tokens in one call, estimated from the length of the texts.
    pub max_tokens: usize,
    /// Target duration of a call that carries several requests or a part of one.
    pub target_time: Duration,
}

/// `[retry]`
#[derive(Clone, Debug)]
pub struct Retry {
    /// Maximum number of calls for one batch, including the first.
    pub max_attempts: u32,
    /// Wait before the first retry; it doubles with each retry, with full jitter.
    pub base_wait: Duration,
    /// Longest wait between two attempts if vecho chooses it.
    pub max_wait: Duration,
    /// Retries allowed per call, over time.
    pub budget_ratio: f64,
}

/// `[breaker]`
#[derive(Clone, Debug)]
pub struct Breaker {
    /// Consecutive unavailable outcomes that open the breaker. 0 switches it off.
    pub failures: u32,
    /// Duration of the first open period; it doubles up to `max_open`.
    pub open_for: Duration,
    /// Longest time between two probes.
    pub max_open: Duration,
}

/// `[fallback]`
#[derive(Clone, Debug)]
pub struct Fallback {
    /// Kinds of fallback answers that are allowed while the upstream is unavailable.
    pub mode: FallbackMode,
    /// Dimension of a mock if neither the request nor an earlier response determines it.
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

impl FallbackMode {
    /// Returns the value of `fallback.mode`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Stale => "stale",
            Self::Mock => "mock",
        }
    }
}

/// `[cache]`
#[derive(Clone, Debug)]
pub struct Cache {
    /// Time for which an entry is fresh.
    pub ttl: Duration,
    /// Further time for which an expired entry is kept as a fallback.
    pub stale_for: Duration,
    /// Maximum number of entries in memory.
    pub max_entries: Option<u64>,
    /// The callers that share an entry.
    pub scope: Scope,
    /// Secret that makes the keys unpredictable.
    pub key_secret: Option<Secret>,
    /// Request fields that affect the vector and become part of the key.
    pub extra_fields: BTreeSet<String>,
    /// Request headers whose values become part of the key.
    pub key_headers: Vec<HeaderName>,
    /// Names of models in responses, each with the name that it is equivalent to.
    pub same_models: BTreeMap<String, String>,
    /// Storage format of vectors.
    pub codec: Codec,
    /// Share of the memory limit for vectors, in percent.
    pub memory_percent: u64,
    /// Share of the memory limit for the reply cache, in percent.
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
pub struct Disk {
    /// True if the tier is enabled.
    pub enabled: bool,
    /// Folder of the tier, if known.
    pub path: Option<PathBuf>,
    /// Maximum total size of its files in bytes.
    pub max_bytes: u64,
    /// Maximum size of the write queue in bytes.
    pub queue_bytes: usize,
    /// Time for which the tier is not used after a failure.
    pub off_for: Duration,
}

/// `[redis]`
#[derive(Clone, Debug)]
pub struct Redis {
    /// Addresses of the nodes; empty without the tier.
    pub nodes: Vec<RedisNode>,
    /// True if the nodes form a cluster.
    pub cluster: bool,
    /// ACL user.
    pub username: Option<String>,
    /// Password.
    pub password: Option<Secret>,
    /// Prefix of all key names.
    pub key_prefix: String,
    /// Trusted roots that replace the public ones, PEM.
    pub ca_file: Option<PathBuf>,
    /// Client certificate chain and private key, PEM.
    pub identity: Option<Tls>,
    /// Timeout of one command.
    pub timeout: Duration,
    /// Timeout for establishing a connection.
    pub connect_timeout: Duration,
    /// Maximum size of the write queue in bytes.
    pub queue_bytes: usize,
    /// Longest time for which one replica may keep others from fetching; `None` if replicas do not coordinate.
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
pub struct Auth {
    /// Time for which the upstream's acceptance of a credential is valid.
    pub vouch_ttl: Duration,
    /// The headers that together form a caller's credential.
    pub credential_headers: Vec<HeaderName>,
}

/// `[limits]`
#[derive(Clone, Debug)]
pub struct Limits {
    /// Maximum bytes of a request head.
    pub max_header_bytes: usize,
    /// Timeout from the first to the last byte of a request head, and for a TLS handshake.
    pub header_timeout: Duration,
    /// Timeout between two requests on one connection, and before the first.
    pub idle_timeout: Duration,
    /// Timeout between two pieces of a request body.
    pub body_timeout: Duration,
    /// Maximum bytes of an embeddings body.
    pub max_body_bytes: usize,
    /// Timeout of an embeddings request inside vecho.
    pub request_timeout: Duration,
    /// Maximum number of connections on the public port.
    pub max_connections: usize,
    /// Maximum number of requests in flight on the public port.
    pub max_requests: usize,
    /// Maximum bytes of embeddings requests in flight: their bodies, the parsed requests, and responses that wait to be
    /// sent.
    pub max_inflight_bytes: usize,
}

/// `[memory]`
#[derive(Clone, Debug)]
pub struct Memory {
    /// Memory limit of the process in bytes; a lower limit of the container takes precedence.
    pub limit_bytes: u64,
    /// Interval of the governor's checks.
    pub check_every: Duration,
}

/// `[tls]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Certificate chain, PEM.
    pub cert_file: PathBuf,
    /// Private key, PEM.
    pub key_file: PathBuf,
}

/// `[admin]`
#[derive(Clone, Debug)]
pub struct Admin {
    /// Token that grants access to private routes from other hosts.
    pub token: Option<Secret>,
}

/// `[log]`
#[derive(Clone, Debug)]
pub struct Log {
    /// A level, or a filter such as `info,vecho::upstream=debug`.
    pub level: String,
    /// Format of the lines.
    pub format: LogFormat,
}

/// `[traces]`
#[derive(Clone, Debug)]
pub struct Traces {
    /// Address of the collector; `None` without traces.
    pub target: Option<Uri>,
    /// Headers for the collector, marked as sensitive.
    pub headers: Option<HeaderMap>,
    /// Share of the traces started here that is recorded.
    pub sample_ratio: f64,
    /// Resource attributes of the spans: `service.name` and further ones.
    pub resource: BTreeMap<String, String>,
    /// Timeout of one export.
    pub timeout: Duration,
    /// Longest time for which a finished span waits for a batch.
    pub send_every: Duration,
    /// Maximum number of spans in the queue.
    pub queue_spans: usize,
    /// Additional trusted roots, PEM.
    pub ca_file: Option<PathBuf>,
}

/// `[reload]`
#[derive(Clone, Debug)]
pub struct Reload {
    /// Interval of checks for changes of the configuration file and the secret files; with zero, only SIGHUP reloads.
    pub poll_every: Duration,
}

/// `[shutdown]`
#[derive(Clone, Debug)]
pub struct Shutdown {
    /// Time from SIGTERM until work in flight is aborted.
    pub grace: Duration,
}
