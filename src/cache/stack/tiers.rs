//! The stack of tiers, and the storing of records in it.

use std::sync::Arc;

use bytes::Bytes;

use super::damage::Damage;
use crate::cache::at_rest::{self, ChecksumKeys, Damaged};
use crate::cache::purges::{ForgottenRegistry, Generation, Generations, PurgeRegistry, PurgeStamp};
use crate::cache::{AtRest, LowerTier, MemoryTier, Record};
use crate::key::Key;
use crate::process::pace::Pace;

/// All tiers.
pub struct Stack {
    pub(super) memory: MemoryTier,
    /// Tiers below memory, in the order they are queried.
    pub(super) lower: Vec<Arc<dyn LowerTier>>,
    pub(super) generations: Generations,
    pub(super) purges: Arc<PurgeRegistry>,
    pub(super) checksum_keys: ChecksumKeys,
    pub(super) damage: Damage,
}

impl Stack {
    /// Creates a stack of the memory tier and the tiers in `lower`, which are queried in their order.
    pub fn new(
        memory: MemoryTier,
        lower: Vec<Arc<dyn LowerTier>>,
        purges: Arc<PurgeRegistry>,
        checksum_keys: ChecksumKeys,
    ) -> Self {
        let (generations, damage) = (Generations::default(), Damage::default());
        Self { memory, lower, generations, purges, checksum_keys, damage }
    }

    /// Returns true if there are tiers below memory.
    pub const fn has_lower(&self) -> bool {
        !self.lower.is_empty()
    }

    /// Stores a record in memory, unless a purge since `begun` covers it. Purged records must not come back.
    pub fn remember(&self, key: Key, record: &Arc<Record>, begun: Generation) -> bool {
        let is_purged = || self.generations.was_purged_since(&key, &record.models(), begun);
        if is_purged() {
            return false;
        }
        self.memory.put(key, Arc::clone(record));
        // A purge may have run between the check and the insert. Then the record must be removed again.
        let came_too_late = is_purged();
        if came_too_late {
            self.memory.records().remove(&key);
        }
        !came_too_late
    }

    /// Stores a record in the tiers below memory, unless a purge since `begun` covers it.
    pub fn keep_below(&self, key: Key, record: &Record, begun: Generation) {
        if self.lower.is_empty() {
            return;
        }
        // Read the purge counts before the generation: then one of the two checks notices a purge in between.
        let counts = self.purges.stamp(&key, &record.models());
        if self.generations.was_purged_since(&key, &record.models(), begun) {
            return;
        }
        // The record is encoded once, and all tiers share the bytes.
        let bytes = Bytes::from(at_rest::to_bytes(record, counts, &self.checksum_keys.of(&key)));
        let until_ms = record.times.stale_until_ms.max(record.times.fresh_until_ms);
        for tier in &self.lower {
            tier.put(key, AtRest { bytes: bytes.clone(), until_ms });
        }
    }

    /// Stores records like [`Stack::keep_below`]. While there are many, other tasks of the thread run in between.
    pub async fn keep_all_below<'r>(&self, records: impl Iterator<Item = (Key, &'r Arc<Record>)>, begun: Generation) {
        let mut pace = Pace::default();
        for (key, record) in records.filter(|_| self.has_lower()) {
            self.keep_below(key, record, begun);
            pace.after(record.vector.payload().len()).await;
        }
    }

    /// Decodes a record and its purge counts, if it is intact, belongs to `key`, and is not purged.
    pub(super) fn unpurged(&self, key: &Key, bytes: &[u8]) -> Result<Option<(Record, PurgeStamp)>, Damaged> {
        let (record, counts) = at_rest::from_bytes(bytes, &self.checksum_keys.of(key))?;
        // A higher count comes from a replica that knows of a purge which this process has yet to learn.
        let is_purged = counts.is_behind(self.purges.stamp(key, &record.models()));
        Ok((!is_purged).then_some((record, counts)))
    }

    /// Returns the current generation, for a fetch or a rendering that begins now.
    pub fn generation(&self) -> Generation {
        self.generations.current()
    }

    /// Returns the counts of forgotten keys.
    pub fn forgotten(&self) -> &ForgottenRegistry {
        self.purges.forgotten()
    }

    /// Returns the memory tier.
    pub const fn memory(&self) -> &MemoryTier {
        &self.memory
    }

    /// Returns the tiers below memory.
    pub fn lower(&self) -> &[Arc<dyn LowerTier>] {
        &self.lower
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::two_shelves;
    use crate::cache::{Record, Times};
    use crate::key::{KeyBuilder, Tag};
    use crate::learned::ModelIdentity;
    use crate::process::pace::tests::turns_during;
    use crate::vector::Vector;
    use std::sync::Arc;

    #[tokio::test]
    async fn other_tasks_run_while_many_records_are_stored_below_memory() {
        let (stack, disk, _redis) = two_shelves();
        let vector = Vector::from_components(&[0.1; 3_072]).expect("it is a vector");
        let times = Times { created_ms: 1, fresh_until_ms: u64::MAX, stale_until_ms: u64::MAX };
        let record = Arc::new(Record::new(
            vector,
            ModelIdentity { model: "a".into(), dimension: 3_072, revision: 0 },
            times,
            None,
        ));
        let keys: Vec<_> =
            (0..2_048_u32).map(|n| KeyBuilder::new(None).part(Tag::Text, &n.to_le_bytes()).finish()).collect();
        let records = keys.iter().map(|key| (*key, &record));
        let ((), turns) = turns_during(stack.keep_all_below(records, stack.generation())).await;
        assert!(turns >= 2, "{turns} turns");
        assert!(keys.iter().all(|key| disk.holds(key)));
    }
}
