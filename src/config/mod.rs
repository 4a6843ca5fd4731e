//! Configuration in two steps: raw values (`raw`), then checked values (`checked`).
//!
//! One table (`keys`) defines every key. `raw` collects their values from files, environment and flags, `checks`
//! converts them to a [`Config`] or reports every fault at once, `effective` shows the result, and `live` applies
//! reloads. Only `source` and `reader` read files.

mod checked;
mod checks;
mod effective;
mod faults;
mod keys;
mod live;
mod logging;
mod long_input;
mod lookup;
mod origin;
mod proxies;
mod raw;
mod reader;
mod reference;
mod savings;
mod secret;
mod source;
mod values;
mod words;

pub use checked::{
    AdminConfig, AuthConfig, BatchConfig, BreakerConfig, BudgetConfig, BudgetUnit, CacheConfig, CallerIdentity,
    CompressionMode, Config, DailyLimits, DiskConfig, DriftAction, DriftConfig, EgressConfig, FallbackConfig,
    FallbackMode, KeyHeader, LeaseMode, LimitsConfig, LogConfig, MemoryConfig, PaceConfig, PaceMode, Priority,
    PriorityConfig, RedisConfig, RedisNode, ReloadConfig, RetryConfig, Scope, ShutdownConfig, TargetConfig, TlsConfig,
    TracesConfig, UpstreamConfig, UpstreamEncoding, UpstreamTarget,
};
pub use effective::{DisplayValue, Effective, Setting};
pub use faults::{Fault, Faults};
pub use keys::{ConfigKey, KEYS, WELL_KNOWN};
pub use live::{Changes, Live, changes};
pub use logging::{BadLevel, LogFormat, parse_log_level};
pub use long_input::{LongInput, LongInputRules};
pub use origin::Origin;
pub use raw::Flag;
pub use reference::reference;
pub use savings::{Price, SavingsConfig};
pub use secret::Secret;
pub use source::ConfigSource;
pub use values::parse_duration;
