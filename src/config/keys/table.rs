//! The table of configuration keys. Files, environment, checks, documentation and reloads all use it.

use super::key::ConfigKey;
use super::{budget, cache, compression, drift, observing, pace, ports, serving, targets, upstream};

/// The keys by group, in the order of the documentation.
const GROUPS: [&[ConfigKey]; 10] = [
    ports::KEYS,
    compression::KEYS,
    targets::KEYS,
    upstream::KEYS,
    pace::KEYS,
    drift::KEYS,
    cache::KEYS,
    serving::KEYS,
    budget::KEYS,
    observing::KEYS,
];

/// Every key, in the order of the documentation.
pub const KEYS: &[ConfigKey] = &joined::<{ count() }>();

/// Environment variables of other software, and the corresponding keys.
pub const WELL_KNOWN: &[(&str, &str)] = &[
    ("OPENAI_API_KEY", "upstream.api_key"),
    ("CACHE_MAX_SIZE", "cache.max_entries"),
    ("CACHE_TTL_SECONDS", "cache.ttl"),
    ("EMBEDDING_BATCH_SIZE", "batch.max_inputs"),
    ("MAX_CONCURRENT_REQUESTS", "upstream.max_concurrent"),
    ("MEMORY_LIMIT_MB", "memory.limit_mb"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "traces.endpoint"),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "traces.url"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "traces.headers"),
    ("OTEL_SERVICE_NAME", "traces.service_name"),
    ("OTEL_RESOURCE_ATTRIBUTES", "traces.resource"),
];

const fn count() -> usize {
    let (mut group, mut count) = (0, 0);
    while group < GROUPS.len() {
        count += GROUPS[group].len();
        group += 1;
    }
    count
}

// A constant function has no iterators.
const fn joined<const N: usize>() -> [ConfigKey; N] {
    let mut keys = [ports::KEYS[0]; N];
    let (mut group, mut next) = (0, 0);
    while group < GROUPS.len() {
        let mut key = 0;
        while key < GROUPS[group].len() {
            keys[next] = GROUPS[group][key];
            next += 1;
            key += 1;
        }
        group += 1;
    }
    keys
}
