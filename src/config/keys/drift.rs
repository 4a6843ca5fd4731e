//! Keys: the model watch.

use super::key::{ConfigKey, key};

pub(super) const KEYS: &[ConfigKey] = &[
    key(
        "drift.every",
        "\"0s\"",
        "Time between two checks of each model in use, with three short texts of vecho's own; 0 disables them. Checks \
         need an upstream.api_key, or callers that send no credential.",
    )
    .live(),
    key(
        "drift.action",
        "\"warn\"",
        "Action if a check finds that a model's vectors have changed: warn (metric, log and alert), refetch (older \
         entries are fetched again as well).",
    )
    .live(),
    key(
        "drift.bound",
        "0.0001",
        "Largest difference between two vectors of one text, 1 - cosine, that is no change of the model.",
    )
    .live(),
];
