//! Keys: the two ports and the workers behind them.

use super::key::{ConfigKey, key};

pub(super) const KEYS: &[ConfigKey] = &[
    key("listen", "\"127.0.0.1:7861\"", "Address of the public port, which applications call."),
    key("admin_listen", "\"127.0.0.1:7862\"", "Address of the ops port: metrics, health, cache control."),
    key("workers", "none", "Number of threads that serve requests; by default one per processor."),
];
