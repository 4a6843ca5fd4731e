//! Keys: several places that serve the same models.

use super::key::{ConfigKey, key};

pub(super) const KEYS: &[ConfigKey] = &[key(
    "targets",
    "none",
    "Several places that serve the same models, as [[targets]] tables, in place of upstream.url; in the environment a \
     JSON array of objects.",
)];
