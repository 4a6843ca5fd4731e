//! Keys: rate limits of the service, and the order of calls that wait for them.

use super::key::{ConfigKey, key};

pub(super) const KEYS: &[ConfigKey] = &[
    key(
        "pace.mode",
        "\"auto\"",
        "How calls stay inside the service's rate limits: auto (the configured limits, and those that the service's \
         answers show: calls wait instead of being refused), off.",
    ),
    key(
        "pace.requests_per_minute",
        "none",
        "Maximum number of embeddings calls a minute for each credential and model; more wait for their turn.",
    ),
    key(
        "pace.tokens_per_minute",
        "none",
        "Maximum number of tokens a minute in the embeddings calls of each credential and model.",
    ),
    key(
        "pace.concurrent",
        "none",
        "Maximum number of embeddings calls in flight for each credential and model; upstream.max_concurrent limits \
         those of all together.",
    ),
    key(
        "pace.shared",
        "false",
        "True if replicas with one Redis share the configured limits, by what each of them needs; while Redis cannot be \
         reached, each has an equal part.",
    ),
    key(
        "priority.bulk_from",
        "16",
        "Number of inputs from which a request without the header x-vecho-priority is bulk: its calls wait behind those \
         of interactive requests.",
    )
    .live(),
];
