//! The checked configuration: typed, complete and consistent. A value that must exist is never optional.
//!
//! Fields name their keys. [`KEYS`](super::KEYS) describes them.

mod cache;
mod compression;
mod process;
mod upstream;
mod whole;

pub use cache::{AuthConfig, CacheConfig, DiskConfig, RedisConfig, RedisNode, Scope};
pub use compression::CompressionMode;
pub use process::{
    AdminConfig, LimitsConfig, LogConfig, MemoryConfig, ReloadConfig, ShutdownConfig, TlsConfig, TracesConfig,
};
pub use upstream::{
    BatchConfig, BreakerConfig, FallbackConfig, FallbackMode, KeyHeader, RetryConfig, UpstreamConfig, UpstreamEncoding,
    UpstreamTarget,
};
pub use whole::Config;
