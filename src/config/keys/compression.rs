//! Keys: compression of answers.

use super::key::{ConfigKey, key};

pub(super) const KEYS: &[ConfigKey] = &[key(
    "compression",
    "\"auto\"",
    "Compression of answers with vectors, in a coding that the caller accepts: auto (for callers at public addresses), \
     on (for all callers), off.",
)
.live()];
