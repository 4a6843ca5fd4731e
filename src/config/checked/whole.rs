//! The whole checked configuration.

use std::net::SocketAddr;

use super::{
    AdminConfig, AuthConfig, BatchConfig, BreakerConfig, BudgetConfig, CacheConfig, CompressionMode, DiskConfig,
    DriftConfig, FallbackConfig, LimitsConfig, LogConfig, MemoryConfig, PaceConfig, PriorityConfig, RedisConfig,
    ReloadConfig, RetryConfig, ShutdownConfig, TargetConfig, TlsConfig, TracesConfig, UpstreamConfig,
};
use crate::config::{Effective, SavingsConfig};

/// The whole configuration after all checks.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address of the public port.
    pub listen: SocketAddr,
    /// Address of the ops port.
    pub admin_listen: SocketAddr,
    /// Threads of the runtime.
    pub workers: usize,
    /// Compression of answers.
    pub compression: CompressionMode,
    /// The upstream service.
    pub upstream: UpstreamConfig,
    /// Several places in its stead; none by default.
    pub targets: Vec<TargetConfig>,
    /// Rate limits of the service.
    pub pace: PaceConfig,
    /// Order of calls that wait.
    pub priority: PriorityConfig,
    /// Batching of misses.
    pub batch: BatchConfig,
    /// Retries of failed calls.
    pub retry: RetryConfig,
    /// Circuit breaker for calls.
    pub breaker: BreakerConfig,
    /// Answers while the upstream is unavailable.
    pub fallback: FallbackConfig,
    /// The model watch.
    pub drift: DriftConfig,
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
    /// Limits of what a day may cost.
    pub budget: BudgetConfig,
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
