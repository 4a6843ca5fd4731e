//! The checked configuration: typed, complete and consistent. A value that must exist is never optional.
//!
//! Fields name their keys. [`KEYS`](super::KEYS) describes them.

mod budget;
mod cache;
mod compression;
mod drift;
mod egress;
mod pace;
mod process;
mod targets;
mod upstream;
mod whole;

pub use budget::{BudgetConfig, BudgetUnit, DailyLimits};
pub use cache::{AuthConfig, CacheConfig, CallerIdentity, DiskConfig, LeaseMode, RedisConfig, RedisNode, Scope};
pub use compression::CompressionMode;
pub use drift::{DriftAction, DriftConfig};
pub use egress::EgressConfig;
pub use pace::{PaceConfig, PaceMode, Priority, PriorityConfig};
pub use process::{
    AdminConfig, LimitsConfig, LogConfig, MemoryConfig, ReloadConfig, ShutdownConfig, TlsConfig, TracesConfig,
};
pub use targets::TargetConfig;
pub use upstream::{
    BatchConfig, BreakerConfig, FallbackConfig, FallbackMode, KeyHeader, RetryConfig, UpstreamConfig, UpstreamEncoding,
    UpstreamTarget,
};
pub use whole::Config;
