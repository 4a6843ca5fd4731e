//! What the configuration means: typed, complete, consistent. No option is left where a value must be.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderMap, HeaderName, Uri};

use super::{Effective, Savings, Secret};
pub use crate::logs::LogFormat;
use crate::packed::Codec;

/// The whole configuration, after every check.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address of the public port.
    pub listen: SocketAddr,
    /// Address of the ops port.
    pub admin_listen: SocketAddr,
    /// Threads of the runtime.
    pub workers: usize,
    /// The service behind.
    pub upstream: Upstream,
    /// How misses are packed.
    pub batch: Batch,
    /// How failed calls are repeated.
    pub retry: Retry,
    /// When calling is given up for a while.
    pub breaker: Breaker,
    /// What is answered while the upstream is unavailable.
    pub fallback: Fallback,
    /// What is kept, for whom, how long.
    pub cache: Cache,
    /// The tier on disk.
    pub disk: Disk,
    /// The tier in Redis or Valkey.
    pub redis: Redis,
    /// Credentials of callers.
    pub auth: Auth,
    /// Bounds on what a client may take.
    pub limits: Limits,
    /// Bounds on the process.
    pub memory: Memory,
    /// TLS on the public port.
    pub tls: Option<Tls>,
    /// The ops port.
    pub admin: Admin,
    /// What tokens cost.
    pub savings: Savings,
    /// Logging.
    pub log: Log,
    /// Traces of requests.
    pub traces: Traces,
    /// Re-reading the configuration.
    pub reload: Reload,
    /// Stopping.
    pub shutdown: Shutdown,
    /// Every key as it is shown, with where its value came from.
    pub effective: Effective,
}

/// `[upstream]`
#[derive(Clone, Debug)]
pub struct Upstream {
    /// What is called.
    pub target: UpstreamTarget,
    /// The API key that vecho holds and sends in place of the caller's.
    pub api_key: Option<Secret>,
    /// Which header carries that key.
    pub api_key_header: KeyHeader,
    /// In which encoding vectors are asked for.
    pub encoding: Encoding,
    /// Embedding calls under way at once.
    pub max_concurrent: usize,
    /// Limit of DNS, TCP and TLS together.
    pub connect_timeout: Duration,
    /// Least time that a call may take to the headers of its answer; without it a call waits as long as its requests.
    pub headers_timeout: Option<Duration>,
    /// Limit of one embeddings call, answer body included.
    pub call_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// How long a connection takes new requests.
    pub max_connection_age: Duration,
    /// Largest embeddings answer that is read, in bytes.
    pub max_answer_bytes: usize,
    /// Further trusted roots, PEM.
    pub ca_file: Option<PathBuf>,
}

/// What stands behind vecho.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamTarget {
    /// A server: scheme, authority and base path, as an application would have it in `OPENAI_BASE_URL`.
    Http(Uri),
    /// The built-in mock embedder (`mock:`); no network.
    Mock,
}

/// As `upstream.url` has it.
impl fmt::Display for UpstreamTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(uri) => uri.fmt(f),
            Self::Mock => f.write_str("mock:"),
        }
    }
}

/// The header in which an API key that vecho holds is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyHeader {
    /// `authorization: Bearer <key>`
    Authorization,
    /// `api-key: <key>`, as Azure wants it
    ApiKey,
}

/// `upstream.encoding`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// base64 where the vectors are known to be f32, else as the caller asked.
    Auto,
    /// What the caller asked.
    AsAsked,
    /// Always base64.
    Base64,
    /// Always numbers.
    Float,
}

/// `[batch]`
#[derive(Clone, Debug)]
pub struct Batch {
    /// Most inputs in one call.
    pub max_inputs: usize,
    /// Most tokens in one call, as estimated from the length of the texts.
    pub max_tokens: usize,
    /// How long a call may take that carries several requests or a part of one.
    pub target_time: Duration,
}

/// `[retry]`
#[derive(Clone, Debug)]
pub struct Retry {
    /// Calls for one batch, the first included.
    pub max_attempts: u32,
    /// Wait before the first repetition; doubles from there, with full jitter.
    pub base_wait: Duration,
    /// Longest wait between two attempts that vecho chooses itself.
    pub max_wait: Duration,
    /// Retries allowed per call made, over time.
    pub budget_ratio: f64,
}

/// `[breaker]`
#[derive(Clone, Debug)]
pub struct Breaker {
    /// Unavailable outcomes in a row that open it. 0 switches it off.
    pub failures: u32,
    /// How long it stays open the first time; doubles up to `max_open`.
    pub open_for: Duration,
    /// Longest time between two probes.
    pub max_open: Duration,
}

/// `[fallback]`
#[derive(Clone, Debug)]
pub struct Fallback {
    /// How far an answer may go when the upstream is unavailable.
    pub mode: FallbackMode,
    /// Dimension of a mock when neither the request nor an earlier answer tells it.
    pub mock_dimensions: usize,
}

/// How far fallback may go; each includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FallbackMode {
    /// The error.
    Error,
    /// An entry past its time, else the error.
    Stale,
    /// An entry past its time, else a marked mock.
    Mock,
}

impl FallbackMode {
    /// The value of `fallback.mode`.
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
    /// How long an entry is fresh.
    pub ttl: Duration,
    /// How long after that it is kept as a stand-in.
    pub stale_for: Duration,
    /// Most entries in memory.
    pub max_entries: Option<u64>,
    /// Who may share an entry.
    pub scope: Scope,
    /// Makes the keys unguessable.
    pub key_secret: Option<Secret>,
    /// Request fields that shape the vector and join the key.
    pub extra_fields: BTreeSet<String>,
    /// Request headers whose values join the key.
    pub key_headers: Vec<HeaderName>,
    /// Names of models in answers, and for each the name that it counts as.
    pub same_models: BTreeMap<String, String>,
    /// How vectors are packed.
    pub codec: Codec,
    /// Share of the memory limit for vectors, in percent.
    pub memory_percent: u64,
    /// Share of the memory limit for rendered answers, in percent.
    pub answers_percent: u64,
}

/// `cache.scope`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One space for each credential.
    Credential,
    /// One space; vecho holds the key.
    Proxy,
    /// One space, for credentials that the upstream has accepted.
    Shared,
}

/// `[disk]`
#[derive(Clone, Debug)]
pub struct Disk {
    /// Whether there is to be one.
    pub enabled: bool,
    /// Its folder, where one is known.
    pub path: Option<PathBuf>,
    /// What its files take together, in bytes.
    pub max_bytes: u64,
    /// What may wait to be written, in bytes.
    pub queue_bytes: usize,
    /// How long it is left alone after a failure.
    pub off_for: Duration,
}

/// `[redis]`
#[derive(Clone, Debug)]
pub struct Redis {
    /// Where it is; nothing without the tier.
    pub nodes: Vec<RedisNode>,
    /// Whether the nodes are of a cluster.
    pub cluster: bool,
    /// ACL user.
    pub username: Option<String>,
    /// Password.
    pub password: Option<Secret>,
    /// What all names of keys begin with.
    pub key_prefix: String,
    /// Trusted roots in place of the public ones, PEM.
    pub ca_file: Option<PathBuf>,
    /// Client certificate chain and private key, PEM.
    pub identity: Option<Tls>,
    /// Limit of one question.
    pub timeout: Duration,
    /// Limit of a connection's making.
    pub connect_timeout: Duration,
    /// What may wait to be written, in bytes.
    pub queue_bytes: usize,
    /// How long one replica may keep the others from fetching; nothing where each asks for itself.
    pub lease: Option<Duration>,
}

/// One address in `redis.url`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisNode {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Number of the database.
    pub database: i64,
}

/// `[auth]`
#[derive(Clone, Debug)]
pub struct Auth {
    /// How long the upstream's yes to a credential holds.
    pub vouch_ttl: Duration,
    /// The headers that together are a caller's credential.
    pub credential_headers: Vec<HeaderName>,
}

/// `[limits]`
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a request head.
    pub max_header_bytes: usize,
    /// From the first to the last byte of a request head, and for a TLS handshake.
    pub header_timeout: Duration,
    /// Between two requests on one connection, and before the first.
    pub idle_timeout: Duration,
    /// Between two pieces of a request body.
    pub body_timeout: Duration,
    /// Bytes of an embeddings body.
    pub max_body_bytes: usize,
    /// The life of an embeddings request inside vecho.
    pub request_timeout: Duration,
    /// Connections on the public port.
    pub max_connections: usize,
    /// Requests under way on the public port.
    pub max_requests: usize,
    /// Bytes that embeddings requests under way take: their bodies, what is read of them, and answers that wait to be
    /// sent.
    pub max_inflight_bytes: usize,
}

/// `[memory]`
#[derive(Clone, Debug)]
pub struct Memory {
    /// What the process stays under, in bytes; the container's limit where that is less.
    pub limit_bytes: u64,
    /// How often the governor looks.
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
    /// Lets a caller from elsewhere than loopback change something.
    pub token: Option<Secret>,
}

/// `[log]`
#[derive(Clone, Debug)]
pub struct Log {
    /// A level, or a filter such as `info,vecho::upstream=debug`.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

/// `[traces]`
#[derive(Clone, Debug)]
pub struct Traces {
    /// Where they go; nothing where there are to be none.
    pub target: Option<Uri>,
    /// Headers sent along, marked as sensitive.
    pub headers: Option<HeaderMap>,
    /// Share of the traces begun here that is recorded.
    pub sample_ratio: f64,
    /// Whose spans they are, as attributes: `service.name` and further ones.
    pub resource: BTreeMap<String, String>,
    /// Limit of one delivery.
    pub timeout: Duration,
    /// How long a finished span waits for others.
    pub send_every: Duration,
    /// How many may wait.
    pub queue_spans: usize,
    /// Further trusted roots, PEM.
    pub ca_file: Option<PathBuf>,
}

/// `[reload]`
#[derive(Clone, Debug)]
pub struct Reload {
    /// How often the configuration file and the secret files are looked at; zero: only on SIGHUP.
    pub poll_every: Duration,
}

/// `[shutdown]`
#[derive(Clone, Debug)]
pub struct Shutdown {
    /// Time from SIGTERM until what still runs is cut.
    pub grace: Duration,
}
