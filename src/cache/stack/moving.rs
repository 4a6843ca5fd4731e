//! Export and import of records.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::tiers::Stack;
use crate::cache::at_rest;
use crate::cache::purges::{Generation, JobStart};
use crate::cache::{Age, Record};
use crate::key::Key;
use crate::learned::ModelIdentity;
use crate::vector::packed::Codec;

/// Longest wait, for each tier, until earlier records are written. A tier that takes longer is down and drops records
/// that its queue has no room for.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Outcome of the import of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportOutcome {
    /// The record was stored.
    Kept,
    /// A stored record is as new or newer.
    Known,
    /// The record is expired.
    Over,
    /// A purge since the start of the import, or of the job that made the record, covers it.
    Purged,
    /// The record lost more precision than the configured codec allows.
    Lossy,
    /// The bytes are not a valid record.
    Damaged,
}

/// State of one import.
#[derive(Debug)]
pub struct Arrivals {
    begun: Generation,
    /// Start of the job that made the records, if they are not from another cache.
    job: Option<JobStart>,
    codec: Codec,
    /// Identity of the previous record, shared with the next one if they are equal.
    identity: Option<ModelIdentity>,
}

impl Stack {
    /// Passes every record that is not expired to `visit`, each once, as encoded bytes. Blocks.
    pub fn each_at_rest(&self, now_ms: u64, visit: &mut dyn FnMut(&Key, &[u8]) -> ControlFlow<()>) -> ControlFlow<()> {
        // Records in memory come first. Their copies in the lower tiers are skipped, so each key leaves once.
        let mut seen = HashSet::new();
        let is_over = |record: &Record| record.times.age(now_ms, None) == Age::Over;
        self.memory.records().each(|key, record| {
            if is_over(record) {
                return ControlFlow::Continue(());
            }
            seen.insert(*key);
            let checksum_key = self.checksum_keys.of(key);
            // Memory holds no purged records, so the present purge count applies to all of them.
            visit(key, &at_rest::to_bytes(record, self.purges.stamp(key, &record.models()), &checksum_key))
        })?;
        for tier in &self.lower {
            let tell = |damage: &_| self.damage.tell(tier.tier(), *damage, now_ms);
            // Lower tiers may still hold purged or damaged records, so each is decoded before it leaves.
            tier.each(&mut |key, bytes| match self.unpurged(key, bytes).inspect_err(tell).ok().flatten() {
                Some((record, _)) if !is_over(&record) && seen.insert(*key) => visit(key, bytes),
                _ => ControlFlow::Continue(()),
            })?;
        }
        ControlFlow::Continue(())
    }

    /// Starts an import. Records covered by a purge from now on, or since the start of their job, are not stored.
    pub fn arrivals(&self, codec: Codec, job: Option<JobStart>) -> Arrivals {
        Arrivals { begun: self.generation(), job, codec, identity: None }
    }

    /// Stores the records that are newer than the existing ones, with their original times. Returns the outcome of
    /// each, in order, once the tiers below memory have written them.
    pub async fn keep_arrived(
        &self,
        arrived: &[(Key, Bytes)],
        arrivals: &mut Arrivals,
        now_ms: u64,
    ) -> Vec<ImportOutcome> {
        let keys: Vec<Key> = arrived.iter().map(|(key, _)| *key).collect();
        // The whole batch is looked up first, with one query per tier.
        let known_since = self.created_ms_of(&keys, arrivals.codec, now_ms).await;
        let (mut outcomes, mut kept, mut has_replaced) = (Vec::with_capacity(arrived.len()), Vec::new(), false);
        for ((key, bytes), known_ms) in arrived.iter().zip(known_since) {
            // The purge count in the file is that of another instance. `keep_below` writes the count of this one.
            let Ok((record, _)) = at_rest::from_bytes(bytes, &self.checksum_keys.of(key)) else {
                outcomes.push(ImportOutcome::Damaged);
                continue;
            };
            let record = Arc::new(record.known_as(arrivals.identity.take()));
            arrivals.identity = Some(record.identity.clone());
            outcomes.push(self.keep_one(*key, &record, known_ms, arrivals, now_ms));
            if outcomes.last() == Some(&ImportOutcome::Kept) {
                has_replaced |= known_ms.is_some();
                kept.push((*key, record));
            }
        }
        // Cached replies may hold a vector that was replaced.
        if has_replaced {
            self.generations.outdate();
        }
        // The generation is that of the beginning, so a purge during the import holds.
        self.keep_all_below(kept.iter().map(|(key, record)| (*key, record)), arrivals.begun).await;
        // The queues drop records for which they have no room, so the next batch waits for this one.
        self.written().await;
        outcomes
    }

    fn keep_one(
        &self,
        key: Key,
        record: &Arc<Record>,
        known_ms: Option<u64>,
        arrivals: &Arrivals,
        now_ms: u64,
    ) -> ImportOutcome {
        // Forgets since the start of such a job may be dropped by now.
        let is_too_old = arrivals.job.is_some_and(|job| job.ends_ms() <= now_ms);
        let purges = &self.purges;
        if is_too_old || record.times.age(now_ms, None) == Age::Over {
            ImportOutcome::Over
        } else if arrivals.job.is_some_and(|job| purges.was_purged_since(job, &key, &record.models())) {
            ImportOutcome::Purged
        } else if !arrivals.codec.accepts(record.vector.form()) {
            ImportOutcome::Lossy
        } else if known_ms.is_some_and(|known_ms| known_ms >= record.times.created_ms) {
            // A record of the same age is known too, so a repeated import changes nothing.
            ImportOutcome::Known
        } else if self.remember(key, record, arrivals.begun) {
            ImportOutcome::Kept
        } else {
            ImportOutcome::Purged
        }
    }

    /// Returns the creation time of the newest usable record under each of `keys`.
    async fn created_ms_of(&self, keys: &[Key], codec: Codec, now_ms: u64) -> Vec<Option<u64>> {
        let created_ms = |record: &Record| {
            // An expired or too lossy record must not block the import of a usable older one.
            let is_over = record.times.age(now_ms, None) == Age::Over;
            let is_of_use = !is_over && codec.accepts(record.vector.form());
            is_of_use.then_some(record.times.created_ms)
        };
        let mut newest: Vec<Option<u64>> =
            keys.iter().map(|key| self.memory.peek(key).and_then(|record| created_ms(&record))).collect();
        for tier in &self.lower {
            for ((newest, key), bytes) in newest.iter_mut().zip(keys).zip(tier.get(keys).await) {
                let found = bytes.and_then(|bytes| self.unpurged(key, &bytes).ok()?);
                let below = found.and_then(|(record, _)| created_ms(&record));
                *newest = (*newest).max(below);
            }
        }
        newest
    }

    /// Waits until the tiers below memory have written their queues, or a timeout has passed.
    pub async fn written(&self) {
        for tier in &self.lower {
            // A tier that is down drops entries and counts them in its statistics.
            timeout(WRITE_TIMEOUT, tier.drained()).await.ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::at_rest::ChecksumKeys;
    use crate::cache::bounded::MapBounds;
    use crate::cache::stack::tests::{Shelf, over};
    use crate::cache::{AtRest, LowerTier as _, MemoryTier, Tier, Times};
    use crate::key::{KeyBuilder, Tag};
    use crate::vector::Vector;
    use crate::vector::packed::Packed;

    fn stack() -> Stack {
        let memory = MemoryTier::new(MapBounds { max_bytes: 1 << 20, max_entries: None });
        Stack::new(memory, Vec::new(), Arc::default(), ChecksumKeys::default())
    }

    fn key(n: u8) -> Key {
        KeyBuilder::new(None).part(Tag::Text, &[n]).finish()
    }

    fn at_rest_under(key: &Key, record: &Record) -> Bytes {
        Bytes::from(at_rest::to_bytes(record, 7, &ChecksumKeys::default().of(key)))
    }

    fn arriving(n: u8, created_ms: u64) -> (Key, Bytes) {
        let vector = Vector::from_components(&[f32::from(n) + 1.0, 1.0]).expect("it is a vector");
        let identity = ModelIdentity { model: Arc::from("m"), dimension: 2, revision: 0 };
        let times = Times { created_ms, fresh_until_ms: created_ms + 100, stale_until_ms: created_ms + 200 };
        (key(n), at_rest_under(&key(n), &Record::new(vector, identity, times, None)))
    }

    async fn keep(stack: &Stack, arrivals: &mut Arrivals, arrived: &[(Key, Bytes)]) -> Vec<ImportOutcome> {
        stack.keep_arrived(arrived, arrivals, 1_000).await
    }

    #[tokio::test]
    async fn imports_keep_only_records_newer_than_the_stored_ones() {
        let stack = stack();
        let arrivals = &mut stack.arrivals(Codec::Lossless, None);
        assert_eq!(keep(&stack, arrivals, &[arriving(1, 950)]).await, [ImportOutcome::Kept]);
        let again = [arriving(1, 950), arriving(1, 940), arriving(2, 700), (key(3), Bytes::from_static(b"x"))];
        assert_eq!(
            keep(&stack, arrivals, &again).await,
            [ImportOutcome::Known, ImportOutcome::Known, ImportOutcome::Over, ImportOutcome::Damaged]
        );
        assert_eq!(keep(&stack, arrivals, &[arriving(1, 960)]).await, [ImportOutcome::Kept]);
        assert_eq!(stack.memory().peek(&key(1)).map(|record| record.times.created_ms), Some(960));
    }

    #[tokio::test]
    async fn imported_records_under_another_key_are_damaged() {
        let stack = stack();
        let [(one, of_one), (two, of_two)] = [arriving(1, 950), arriving(2, 950)];
        let swapped = [(one, of_two), (two, of_one)];
        assert_eq!(
            keep(&stack, &mut stack.arrivals(Codec::Lossless, None), &swapped).await,
            [ImportOutcome::Damaged, ImportOutcome::Damaged]
        );
        assert!(stack.memory().peek(&one).is_none() && stack.memory().peek(&two).is_none());
    }

    #[tokio::test]
    async fn only_imports_that_replace_records_start_a_new_generation() {
        let stack = stack();
        let arrivals = &mut stack.arrivals(Codec::Lossless, None);
        let begun = stack.generation();
        keep(&stack, arrivals, &[arriving(1, 950), arriving(2, 950)]).await;
        assert_eq!(stack.generation(), begun);
        keep(&stack, arrivals, &[arriving(1, 960)]).await;
        assert_ne!(stack.generation(), begun);
    }

    #[tokio::test]
    async fn imported_records_with_more_loss_than_the_codec_allows_are_skipped() {
        let stack = stack();
        let vector = Vector::from_components(&[0.1, 0.7]).expect("it is a vector");
        let arriving = |codec| {
            let identity = ModelIdentity { model: Arc::from("m"), dimension: 2, revision: 0 };
            let times = Times { created_ms: 950, fresh_until_ms: 1_050, stale_until_ms: 1_150 };
            let record = Record::new(Packed::pack(&vector, codec), identity, times, None);
            [(key(1), at_rest_under(&key(1), &record))]
        };
        let (lossy, whole) = (arriving(Codec::Int8), arriving(Codec::F32));
        assert_eq!(keep(&stack, &mut stack.arrivals(Codec::Lossless, None), &lossy).await, [ImportOutcome::Lossy]);
        assert_eq!(keep(&stack, &mut stack.arrivals(Codec::Bf16, None), &lossy).await, [ImportOutcome::Lossy]);
        assert_eq!(keep(&stack, &mut stack.arrivals(Codec::Int8, None), &lossy).await, [ImportOutcome::Kept]);
        assert_eq!(keep(&stack, &mut stack.arrivals(Codec::Lossless, None), &whole).await, [ImportOutcome::Kept]);
    }

    #[tokio::test]
    async fn a_purge_stops_imports_that_began_before_it() {
        let stack = stack();
        let arrivals = &mut stack.arrivals(Codec::Lossless, None);
        let _ = stack.purge(Some("m"), 0);
        assert_eq!(keep(&stack, arrivals, &[arriving(1, 950)]).await, [ImportOutcome::Purged]);
        assert_eq!(
            keep(&stack, &mut stack.arrivals(Codec::Lossless, None), &[arriving(1, 950)]).await,
            [ImportOutcome::Kept]
        );
    }

    #[tokio::test]
    async fn imported_records_share_model_names() {
        let stack = stack();
        keep(&stack, &mut stack.arrivals(Codec::Lossless, None), &[arriving(1, 950), arriving(2, 950)]).await;
        let name = |n| stack.memory().peek(&key(n)).expect("it was kept").identity.model.clone();
        assert!(Arc::ptr_eq(&name(1), &name(2)));
    }

    #[tokio::test]
    async fn expired_records_in_memory_are_not_exported() {
        let stack = stack();
        keep(&stack, &mut stack.arrivals(Codec::Lossless, None), &[arriving(1, 950), arriving(2, 990)]).await;
        assert_eq!(leaving(&stack, 1_170), [key(2)]);
    }

    #[tokio::test]
    async fn expired_records_of_the_tiers_below_memory_are_not_exported() {
        let disk = Shelf::new(Tier::Disk);
        let stack = over(vec![disk.clone()]);
        for (key, bytes) in [arriving(1, 950), arriving(2, 990)] {
            disk.put(key, AtRest { bytes, until_ms: u64::MAX });
        }
        assert_eq!(leaving(&stack, 1_170), [key(2)]);
    }

    #[tokio::test]
    async fn an_expired_record_does_not_block_the_import_of_an_older_valid_one() {
        let stack = stack();
        let vector = Vector::from_components(&[1.0, 1.0]).expect("it is a vector");
        let identity = ModelIdentity { model: Arc::from("m"), dimension: 2, revision: 0 };
        let times = Times { created_ms: 960, fresh_until_ms: 970, stale_until_ms: 980 };
        let expired = Arc::new(Record::new(vector, identity, times, None));
        assert!(stack.remember(key(1), &expired, stack.generation()));
        let arrivals = &mut stack.arrivals(Codec::Lossless, None);
        assert_eq!(keep(&stack, arrivals, &[arriving(1, 950)]).await, [ImportOutcome::Kept]);
    }

    /// The keys of the records that leave at this time.
    fn leaving(stack: &Stack, now_ms: u64) -> Vec<Key> {
        let mut left = Vec::new();
        let shown = stack.each_at_rest(now_ms, &mut |key, _| {
            left.push(*key);
            ControlFlow::Continue(())
        });
        assert_eq!(shown, ControlFlow::Continue(()));
        left
    }
}
