//! Calls to the upstream, and answers in its absence.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

use crate::config::{CompressionMode, EgressConfig, Secret};

/// `[upstream]`
#[derive(Clone, Debug)]
pub struct UpstreamConfig {
    /// `upstream.url`.
    pub target: UpstreamTarget,
    /// `upstream.identity`.
    pub identity: Option<Uri>,
    /// `upstream.api_key`.
    pub api_key: Option<Secret>,
    /// `upstream.api_key_header`.
    pub api_key_header: KeyHeader,
    /// `upstream.encoding`.
    pub encoding: UpstreamEncoding,
    /// `upstream.compression`.
    pub compression: CompressionMode,
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
    /// Proxies and client certificate.
    pub egress: EgressConfig,
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
