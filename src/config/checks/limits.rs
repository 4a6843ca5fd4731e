//! Checks of `[limits]` and `[memory]`.

use std::time::Duration;

use super::ranges::{ANY_BYTES, ANY_COUNT, MIB, TIMEOUT};
use crate::config::long_input::{LongInputRules, entry};
use crate::config::reader::Reader;
use crate::config::{LimitsConfig, MemoryConfig};

/// The largest default of `limits.max_inflight_bytes`.
const MOST_INFLIGHT_BYTES: usize = 128 << 20;
/// The largest default of `limits.max_body_bytes`.
const MOST_BODY_BYTES: usize = 64 << 20;

pub(super) fn limits(reader: &mut Reader, memory: &MemoryConfig) -> LimitsConfig {
    // Bodies in flight may take a fifth of the memory by default.
    let share = usize::try_from(memory.limit_bytes / 5).unwrap_or(usize::MAX).min(MOST_INFLIGHT_BYTES);
    let max_inflight_bytes = reader.following_count("limits.max_inflight_bytes", ANY_BYTES, share, "memory.limit_mb");
    // A body must fit into the limit of all bodies.
    let largest_body = max_inflight_bytes.min(MOST_BODY_BYTES);
    LimitsConfig {
        // hyper panics at a buffer of less than 8,192 bytes.
        max_header_bytes: reader.count("limits.max_header_bytes", 8192..=16 * MIB),
        header_timeout: reader.duration("limits.header_timeout", &TIMEOUT),
        idle_timeout: reader.duration("limits.idle_timeout", &TIMEOUT),
        body_timeout: reader.duration("limits.body_timeout", &TIMEOUT),
        max_body_bytes: reader.following_count(
            "limits.max_body_bytes",
            ANY_BYTES,
            largest_body,
            "limits.max_inflight_bytes",
        ),
        request_timeout: reader.duration("limits.request_timeout", &TIMEOUT),
        max_connections: reader.count("limits.max_connections", ANY_COUNT),
        max_requests: reader.count("limits.max_requests", ANY_COUNT),
        max_inflight_bytes,
        long_input: long_input(reader),
    }
}

fn long_input(reader: &mut Reader) -> LongInputRules {
    let entries = reader.list("limits.long_input", entry).unwrap_or_default();
    LongInputRules::read(entries).unwrap_or_else(|fault| {
        reader.fault("limits.long_input", fault);
        LongInputRules::default()
    })
}

pub(super) fn memory(reader: &mut Reader) -> MemoryConfig {
    let limit_mb: u64 = reader.count("memory.limit_mb", 32..=16 * MIB);
    let check_every = Duration::from_millis(10)..=Duration::from_hours(1);
    MemoryConfig { limit_bytes: limit_mb * MIB, check_every: reader.duration("memory.check_every", &check_every) }
}
