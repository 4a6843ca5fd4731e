//! Compares the vectors of a job with the room of the tiers that are to hold them.

use serde_json::Value;

use super::state::JobTarget;
use crate::cli::client::Client;
use crate::cli::progress::{counted, grouped};
use crate::config::Config;
use crate::vector::packed::Codec;

/// Bytes of an entry beside its numbers, in memory and on disk. Source: docs/OPERATING.md, measured.
const MEMORY_ENTRY_BYTES: u64 = 246;
const DISK_ENTRY_BYTES: u64 = 174;

/// Dimensions of OpenAI's models.
const MODELS: [(&str, u64); 3] =
    [("text-embedding-3-small", 1536), ("text-embedding-3-large", 3072), ("text-embedding-ada-002", 1536)];
/// Dimensions that are assumed for a model without known ones.
const USUAL_DIMENSIONS: u64 = 1536;

/// Vectors of a job, and the tiers that are to hold them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JobCapacity {
    vectors: u64,
    /// Number of vectors that the largest tier can hold; `None` without a limit that is known.
    held: Option<u64>,
    has_lower_tier: bool,
    /// True if the length of the vectors is known.
    is_known: bool,
}

impl JobCapacity {
    /// Returns the capacity of the vecho that runs, or else of the folder that is filled.
    pub(super) async fn of(config: &Config, target: &JobTarget, vectors: u64) -> Self {
        let stats = Client::of_ops_port(config).stats().await;
        Self::from_tiers(config, &stats["tiers"], target, vectors)
    }

    fn from_tiers(config: &Config, tiers: &Value, target: &JobTarget, vectors: u64) -> Self {
        let known =
            MODELS.iter().find(|(name, _)| [&target.model, &target.batch_model].iter().any(|model| model == name));
        let known = target.dimensions.map(u64::from).or(known.map(|(_, dimensions)| *dimensions));
        let numbers = packed_bytes(config.cache.codec, known.unwrap_or(USUAL_DIMENSIONS));
        let is_up = |tier: &str| tiers[tier].is_object() && tiers[tier]["up"] != false;
        let disk = match tiers {
            // No vecho runs, so the folder of this configuration is filled.
            Value::Null => Some(config.disk.max_bytes),
            _ if !is_up("disk") => None,
            tiers => tiers["disk"]["capacity_bytes"].as_u64(),
        };
        let disk = disk.map(|bytes| bytes / (numbers + DISK_ENTRY_BYTES));
        let memory = tiers["memory"]["capacity_bytes"]
            .as_u64()
            .map(|bytes| (bytes / (numbers + MEMORY_ENTRY_BYTES)).min(config.cache.max_entries.unwrap_or(u64::MAX)));
        // The room of Redis is not known here.
        let has_redis = is_up("redis");
        Self {
            vectors,
            held: disk.max(memory).filter(|_| !has_redis),
            has_lower_tier: has_redis || disk.is_some(),
            is_known: known.is_some(),
        }
    }

    /// Returns true if it is certain that vectors would be paid for and lost at once.
    pub(super) fn is_exceeded(self) -> bool {
        self.is_known && self.left_out() > 0
    }

    fn left_out(self) -> u64 {
        self.held.map_or(0, |held| self.vectors.saturating_sub(held))
    }

    /// Returns what may become of the vectors, if the tiers cannot keep all of them.
    pub(super) fn warning(self) -> Option<String> {
        let held = grouped(self.held.unwrap_or_default());
        let (vectors, left_out) = (grouped(self.vectors), self.left_out());
        let assumed = if self.is_known { "" } else { ", if they have 1,536 dimensions" };
        if left_out > 0 {
            let cure = if self.has_lower_tier {
                "raise disk.max_mb"
            } else {
                "use a disk tier or Redis, or raise memory.limit_mb or cache.max_entries"
            };
            let lost = counted(left_out, "vector");
            return Some(format!(
                "the cache has room for about {held} of these {vectors} vectors{assumed}: {lost} would be paid for and \
                 lost; {cure}"
            ));
        }
        (!self.has_lower_tier).then(|| {
            "the vecho that runs keeps vectors only in memory, so a restart loses them; a disk tier or Redis keeps them"
                .to_owned()
        })
    }
}

/// Returns the bytes of a vector's numbers, for the vectors of OpenAI and Azure.
const fn packed_bytes(codec: Codec, dimensions: u64) -> u64 {
    match codec {
        Codec::Lossless | Codec::Bf16 => 2 * dimensions + 4,
        Codec::Int8 => dimensions + 4,
        Codec::F32 => 4 * dimensions,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn capacity(pairs: &[(&str, &str)], tiers: &Value, (model, vectors): (&str, u64)) -> JobCapacity {
        let config = Config::from_pairs(pairs).expect("it is free of faults");
        let named = model.to_owned();
        let target = JobTarget {
            upstream: String::new(),
            path: String::new(),
            model: named.clone(),
            batch_model: named,
            dimensions: None,
            namespace: None,
        };
        JobCapacity::from_tiers(&config, tiers, &target, vectors)
    }

    #[test]
    fn memory_holds_as_many_vectors_as_the_guide_says() {
        let memory = json!({"memory": {"capacity_bytes": 314_572_800}});
        let of = |model, vectors| capacity(&[], &memory, (model, vectors));
        assert!(!of("text-embedding-3-small", 94_693).is_exceeded());
        let exceeded = of("text-embedding-3-small", 94_694);
        assert!(exceeded.is_exceeded());
        let warning = exceeded.warning().unwrap_or_default();
        assert!(
            warning.starts_with("the cache has room for about 94,693 of these 94,694 vectors: 1 vector"),
            "{warning}"
        );
        assert!(of("text-embedding-3-large", 50_000).is_exceeded());
        assert!(!of("own", 1_000_000).is_exceeded(), "the length of its vectors is not known");
        assert!(of("own", 1_000_000).warning().is_some_and(|text| text.contains("if they have 1,536 dimensions")));
        assert!(of("own", 1).warning().is_some_and(|text| text.contains("only in memory")));
        assert!(capacity(&[("cache.max_entries", "5")], &memory, ("text-embedding-3-small", 6)).is_exceeded());
    }

    #[test]
    fn a_tier_below_memory_holds_what_memory_cannot() {
        let mut tiers = json!({"memory": {"capacity_bytes": 1 << 20}, "disk": {"capacity_bytes": 1_u64 << 30}});
        let of = |tiers: &Value, vectors| capacity(&[], tiers, ("text-embedding-3-small", vectors));
        assert_eq!(of(&tiers, 330_000).warning(), None, "as the guide says");
        assert!(of(&tiers, 331_000).is_exceeded());
        assert!(of(&tiers, 331_000).warning().is_some_and(|text| text.ends_with("raise disk.max_mb")));
        assert!(of(&Value::Null, 1_000_000).is_exceeded(), "the folder of a stopped vecho has a limit, too");
        tiers["redis"] = json!({"capacity_bytes": 0});
        assert_eq!(of(&tiers, 10_000_000).warning(), None, "the room of Redis is not known");
        (tiers["redis"]["up"], tiers["disk"]["up"]) = (json!(false), json!(false));
        assert!(of(&tiers, 10).warning().is_some_and(|text| text.contains("only in memory")), "neither can be written");
    }
}
