//! Limits, ports, and how the process is observed and ends.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderMap, Uri};

use crate::config::logging::LogFormat;
use crate::config::{LongInputRules, Secret};
use crate::process::connector::ProxyRules;

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
    /// `traces.proxy`, with the variables of the environment if it is `env`.
    pub proxies: ProxyRules,
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
