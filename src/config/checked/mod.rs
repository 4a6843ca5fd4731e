//! The checked configuration: typed, complete and consistent. A value that must exist is never optional.
//!
//! Fields name their keys. [`KEYS`](super::KEYS) describes them.

mod cache;
mod drift;
mod process;
mod targets;
mod upstream;
mod whole;

pub use cache::{AuthConfig, CacheConfig, DiskConfig, RedisConfig, RedisNode, Scope};
pub use drift::{DriftAction, DriftConfig};
pub use process::{
    AdminConfig, LimitsConfig, LogConfig, MemoryConfig, ReloadConfig, ShutdownConfig, TlsConfig, TracesConfig,
};
pub use targets::TargetConfig;
pub use upstream::{
    BatchConfig, BreakerConfig, FallbackConfig, FallbackMode, KeyHeader, RetryConfig, UpstreamConfig, UpstreamEncoding,
    UpstreamTarget,
};
pub use whole::Config;
