//! Configuration in two steps: what was said (`raw`), and what it means (`checked`).

mod checked;
mod secret;

pub use checked::{
    Admin, Auth, Batch, Breaker, Cache, Config, Encoding, Fallback, FallbackMode, KeyHeader, Limits, Log, LogFormat,
    Memory, Reload, Retry, Scope, Shutdown, Tls, Upstream, UpstreamTarget,
};
pub use secret::Secret;
