//! Configuration in two steps: what was said (`raw`), and what it means (`checked`).
//!
//! One table (`table`) names every key. `raw` gathers what files, environment and flags say about them, `checks` turns
//! that into a [`Config`] or into every fault at once, `effective` shows the outcome and `live` puts a re-read one into
//! effect. Only `source` reads files.

mod checked;
mod checks;
mod effective;
mod faults;
mod keys;
mod live;
mod proxies;
mod raw;
mod reader;
mod reference;
mod savings;
mod secret;
mod source;
mod table;
mod values;

pub use checked::{
    Admin, Auth, Batch, Breaker, Cache, Config, Disk, Encoding, Fallback, FallbackMode, KeyHeader, Limits, Log,
    LogFormat, Memory, Redis, RedisNode, Reload, Retry, Scope, Shutdown, Tls, Traces, Upstream, UpstreamTarget,
};
pub use effective::{Effective, Entry, Shown};
pub use faults::{Fault, Faults};
pub use keys::{Key, WELL_KNOWN};
pub use live::{Changes, Live, changes};
pub use raw::{Flag, Origin};
pub use reference::reference;
pub use savings::{Price, Savings};
pub use secret::Secret;
pub use source::Source;
pub use table::KEYS;
