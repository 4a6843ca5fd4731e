//! Tests of the stack: look-ups, storage and purges.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use super::lookup::newest_of;
use super::*;
use crate::cache::at_rest::{self, ChecksumKeys};
use crate::cache::bounded::MapBounds;
use crate::cache::purges::{PurgeRegistry, PurgeSubject};
use crate::cache::{AtRest, Durability, LowerTier, MemoryTier, Record, Tier, TierStats, Times};
use crate::key::{Key, KeyBuilder, Tag};
use crate::learned::{ModelIdentity, SpaceState};
use crate::observe::traces::TraceContext;
use crate::vector::Vector;
use crate::vector::packed::{Codec, Packed};
use futures_util::future::BoxFuture;

fn stack() -> Stack {
    over(Vec::new())
}

pub(super) fn bytes_under(key: &Key, record: &Record) -> Bytes {
    Bytes::from(at_rest::to_bytes(record, 0, &ChecksumKeys::default().of(key)))
}

pub(super) fn over(lower: Vec<Arc<dyn LowerTier>>) -> Stack {
    let memory = MemoryTier::new(MapBounds { max_bytes: 1 << 20, max_entries: None });
    Stack::new(memory, lower, Arc::default(), ChecksumKeys::default())
}

pub(super) fn record(model: &str) -> Arc<Record> {
    let vector = Vector::from_components(&[1.0, 2.0]).expect("it is a vector");
    let times = Times { created_ms: 0, fresh_until_ms: 100, stale_until_ms: 200 };
    Arc::new(Record::new(vector, ModelIdentity { model: model.into(), dimension: 2, revision: 0 }, times, None))
}

pub(super) fn at(now_ms: u64, space_state: &SpaceState) -> Lookup<'_> {
    let (space, trace) = (KeyBuilder::new(None).finish(), TraceContext::NONE);
    Lookup { now_ms, max_age_ms: None, space_state, space, codec: Codec::Lossless, trace, leases: None }
}

#[test]
fn a_record_of_a_model_that_no_longer_answers_is_a_miss() {
    let (stack, space_state, key) = (stack(), SpaceState::default(), KeyBuilder::new(None).finish());
    stack.remember(key, &record("a"), stack.generation());
    assert!(matches!(stack.look_up(&key, &at(1, &space_state)), Found::Fresh(_, Tier::Memory)));
    space_state.learn("b", 2, 0);
    assert!(matches!(stack.look_up(&key, &at(1, &space_state)), Found::Stale(_)));
}

#[test]
fn an_entry_past_its_stale_time_is_dropped() {
    let (stack, space_state, key) = (stack(), SpaceState::default(), KeyBuilder::new(None).finish());
    stack.remember(key, &record("a"), stack.generation());
    assert!(matches!(stack.look_up(&key, &at(100, &space_state)), Found::Stale(_)));
    assert!(matches!(stack.look_up(&key, &at(200, &space_state)), Found::Missing));
    assert!(matches!(stack.look_up(&key, &at(1, &space_state)), Found::Missing), "it was dropped for good");
}

#[test]
fn fetches_that_began_before_a_purge_are_not_stored_in_memory() {
    let (stack, space_state, key) = (stack(), SpaceState::default(), KeyBuilder::new(None).finish());
    let begun = stack.generation();
    let _ = stack.purge(None, 0);
    stack.remember(key, &record("a"), begun);
    assert!(matches!(stack.look_up(&key, &at(1, &space_state)), Found::Missing));
}

#[test]
fn a_purge_of_one_model_keeps_pending_fetches_of_others() {
    let (stack, space_state, root) = (stack(), SpaceState::default(), KeyBuilder::new(None).finish());
    let keys: Vec<Key> = (0..3_u8).map(|n| root.extend(crate::key::Tag::Text, &[n])).collect();
    let begun = stack.generation();
    let asked = |model: &str| {
        let times = Times { created_ms: 0, fresh_until_ms: 100, stale_until_ms: 200 };
        let identity = ModelIdentity { model: "answering".into(), dimension: 1, revision: 0 };
        let vector = Vector::from_components(&[1.0]).expect("it is a vector");
        Arc::new(Record::new(vector, identity, times, None).asked_as(&model.into()))
    };
    let _ = stack.purge(Some("a"), 0);
    for (key, model) in keys.iter().zip(["a", "b", "b"]) {
        stack.remember(*key, &asked(model), begun);
    }
    assert!(matches!(stack.look_up(&keys[0], &at(1, &space_state)), Found::Missing));
    assert!(matches!(stack.look_up(&keys[1], &at(1, &space_state)), Found::Fresh(..)));
    assert_eq!((stack.purge(Some("b"), 0).removed, stack.purge(Some("answering"), 0).removed), (2, 0));
}

#[test]
fn a_purge_by_model_keeps_the_entries_of_other_models() {
    let (stack, space_state, root) = (stack(), SpaceState::default(), KeyBuilder::new(None).finish());
    let keys: Vec<Key> = (0..4_u8).map(|n| root.extend(crate::key::Tag::Text, &[n])).collect();
    for (place, key) in keys.iter().enumerate() {
        stack.remember(*key, &record(if place == 3 { "b" } else { "a" }), stack.generation());
    }
    assert_eq!(stack.purge(Some("a"), 0).removed, 3);
    assert!(matches!(stack.look_up(&keys[0], &at(1, &space_state)), Found::Missing));
    assert!(matches!(stack.look_up(&keys[3], &at(1, &space_state)), Found::Fresh(..)));
}

/// A tier below memory that is a map and records its calls.
#[derive(Debug)]
pub(super) struct Shelf {
    tier: Tier,
    is_down: AtomicBool,
    pub(super) entries: Mutex<HashMap<Key, AtRest>>,
    asked: Mutex<Vec<Vec<Key>>>,
    pub(super) purged: Mutex<Vec<String>>,
}

impl Shelf {
    pub(super) fn new(tier: Tier) -> Arc<Self> {
        let (entries, asked, purged) = (Mutex::default(), Mutex::default(), Mutex::default());
        Arc::new(Self { tier, is_down: AtomicBool::new(false), entries, asked, purged })
    }

    pub(super) fn holds(&self, key: &Key) -> bool {
        self.until_ms(key).is_some()
    }

    pub(super) fn until_ms(&self, key: &Key) -> Option<u64> {
        self.entries.lock().unwrap().get(key).map(|entry| entry.until_ms)
    }

    pub(super) fn set_up(&self, is_up: bool) {
        self.is_down.store(!is_up, Ordering::Relaxed);
    }

    /// Returns the number of keys in the last call.
    pub(super) fn last_question(&self) -> Option<usize> {
        self.asked.lock().unwrap().last().map(Vec::len)
    }
}

impl LowerTier for Shelf {
    fn tier(&self) -> Tier {
        self.tier
    }

    fn is_shared(&self) -> bool {
        self.tier == Tier::Redis
    }

    fn get<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Vec<Option<Bytes>>> {
        self.asked.lock().unwrap().push(keys.to_vec());
        let entries = self.entries.lock().unwrap();
        let found = keys.iter().map(|key| entries.get(key).map(|entry| entry.bytes.clone())).collect();
        Box::pin(std::future::ready(found))
    }

    fn put(&self, key: Key, entry: AtRest) {
        self.entries.lock().unwrap().insert(key, entry);
    }

    fn purged<'a>(&'a self, _: &'a Arc<PurgeRegistry>, subject: &'a PurgeSubject) -> BoxFuture<'a, (u64, Durability)> {
        let name = if let PurgeSubject::Model(model) = subject { model.to_string() } else { format!("{subject:?}") };
        self.purged.lock().unwrap().push(name);
        Box::pin(std::future::ready((0, Durability::ForGood)))
    }

    fn note_ahead(&self) -> BoxFuture<'_, ()> {
        self.purged.lock().unwrap().push("ahead".to_owned());
        Box::pin(std::future::ready(()))
    }

    fn clear(&self) -> BoxFuture<'_, (u64, Durability)> {
        Box::pin(std::future::ready((0, Durability::ForGood)))
    }

    fn each(&self, visit: &mut dyn FnMut(&Key, &[u8]) -> ControlFlow<()>) -> ControlFlow<()> {
        self.entries.lock().unwrap().iter().try_for_each(|(key, entry)| visit(key, &entry.bytes))
    }

    fn stats(&self) -> TierStats {
        TierStats { up: !self.is_down.load(Ordering::Relaxed), ..TierStats::default() }
    }

    fn close(&self, _timeout: Duration) -> BoxFuture<'_, usize> {
        Box::pin(std::future::ready(0))
    }
}

pub(super) fn keys(count: u8) -> Vec<Key> {
    let root = KeyBuilder::new(None).finish();
    (0..count).map(|n| root.extend(Tag::Text, &[n])).collect()
}

/// Returns a stack with a disk tier and a Redis tier that are maps.
pub(super) fn two_shelves() -> (Stack, Arc<Shelf>, Arc<Shelf>) {
    let (disk, redis) = (Shelf::new(Tier::Disk), Shelf::new(Tier::Redis));
    (over(vec![Arc::clone(&disk) as Arc<dyn LowerTier>, Arc::clone(&redis) as _]), disk, redis)
}

pub(super) fn keep(stack: &Stack, key: Key, record: &Arc<Record>) {
    stack.keep_below(key, record, stack.generation());
}

#[tokio::test]
async fn each_tier_is_queried_once_for_the_keys_that_upper_tiers_lack() {
    let (stack, disk, redis) = two_shelves();
    let (keys, space_state) = (keys(3), SpaceState::default());
    space_state.learn("a", 2, 0);
    keep(&stack, keys[0], &record("a"));
    keep(&stack, keys[1], &record("a"));
    disk.entries.lock().unwrap().remove(&keys[1]);
    let found = stack.look_below(&keys, &at(1, &space_state), stack.generation()).await;
    assert!(matches!(found[..], [Found::Fresh(_, Tier::Disk), Found::Fresh(_, Tier::Redis), Found::Missing]));
    assert_eq!(*disk.asked.lock().unwrap(), std::slice::from_ref(&keys));
    assert_eq!(*redis.asked.lock().unwrap(), [keys[1..].to_vec()]);
}

#[tokio::test]
async fn examining_records_does_not_promote_them() {
    let (stack, disk, _redis) = two_shelves();
    let (keys, space_state) = (keys(1), SpaceState::default());
    keep(&stack, keys[0], &record("a"));
    disk.entries.lock().unwrap().clear();
    let found = stack.examine(&keys, &at(1, &space_state)).await;
    assert!(matches!(found[0], Found::Fresh(_, Tier::Redis)));
    assert!(matches!(stack.peek(&keys[0], &at(1, &space_state)), Found::Missing) && !disk.holds(&keys[0]));
}

#[tokio::test]
async fn a_fresh_record_in_a_lower_tier_wins_over_a_stale_one() {
    let (stack, disk, _redis) = two_shelves();
    let (keys, space_state) = (keys(2), SpaceState::default());
    let later = Times { created_ms: 100, fresh_until_ms: 300, stale_until_ms: 400 };
    let identity = ModelIdentity { model: "a".into(), dimension: 2, revision: 0 };
    let vector = Vector::from_components(&[1.0, 2.0]).unwrap();
    keep(&stack, keys[0], &Arc::new(Record::new(vector, identity, later, None)));
    for key in &keys {
        disk.put(*key, AtRest { bytes: bytes_under(key, &record("a")), until_ms: 200 });
    }
    let found = stack.look_below(&keys, &at(150, &space_state), stack.generation()).await;
    assert!(matches!(found[..], [Found::Fresh(_, Tier::Redis), Found::Stale(_)]), "{found:?}");
    assert!(matches!(stack.look_up(&keys[0], &at(150, &space_state)), Found::Fresh(..)));
}

#[tokio::test]
async fn damaged_expired_or_purged_records_are_missing() {
    let (stack, disk, redis) = two_shelves();
    let (keys, space_state) = (keys(3), SpaceState::default());
    keep(&stack, keys[0], &record("a"));
    for shelf in [&disk, &redis] {
        let mut damaged = bytes_under(&keys[1], &record("a")).to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        shelf.put(keys[1], AtRest { bytes: damaged.into(), until_ms: 200 });
    }
    let look = async |now_ms| stack.look_below(&keys, &at(now_ms, &space_state), stack.generation()).await;
    assert!(matches!(look(1).await[..], [Found::Fresh(..), Found::Missing, Found::Missing]));
    assert!(matches!(look(200).await[..], [Found::Missing, Found::Missing, Found::Missing]));
    stack.settle(&stack.purge(Some("a"), 0)).await;
    assert!(matches!(look(1).await[..], [Found::Missing, Found::Missing, Found::Missing]));
    assert_eq!((&*disk.purged.lock().unwrap(), &*redis.purged.lock().unwrap()), (&vec!["a".into()], &vec!["a".into()]));
}

#[tokio::test]
async fn fetches_that_began_before_a_purge_are_not_stored_below_memory() {
    let (stack, disk, _redis) = two_shelves();
    let (keys, begun) = (keys(2), stack.generation());
    let _ = stack.purge(Some("a"), 0);
    let (gone, other) = (record("a"), record("b"));
    stack.keep_below(keys[0], &gone, begun);
    stack.keep_below(keys[1], &other, begun);
    assert!(!disk.holds(&keys[0]) && disk.holds(&keys[1]));
}

#[tokio::test]
async fn a_purge_of_another_replica_is_applied_once() {
    let (stack, disk, redis) = two_shelves();
    let (keys, space_state, elsewhere) = (keys(2), SpaceState::default(), PurgeRegistry::default());
    for (key, model) in keys.iter().zip(["a", "b"]) {
        stack.remember(*key, &record(model), stack.generation());
        keep(&stack, *key, &record(model));
    }
    elsewhere.raise(Some("a"), 0);
    let learnt = stack.learn_purges(&elsewhere.counts().into(), Tier::Redis);
    assert_eq!(learnt.iter().map(|purge| purge.removed).collect::<Vec<_>>(), [1]);
    assert!(stack.learn_purges(&elsewhere.counts().into(), Tier::Redis).is_empty());
    for purge in &learnt {
        stack.settle(purge).await;
    }
    let memory = keys.iter().map(|key| stack.look_up(key, &at(1, &space_state)).is_fresh());
    assert_eq!(memory.collect::<Vec<_>>(), [false, true]);
    let below = stack.look_below(&keys, &at(1, &space_state), stack.generation()).await;
    assert!(matches!(below[..], [Found::Missing, Found::Fresh(_, Tier::Disk)]));
    assert_eq!(*disk.purged.lock().unwrap(), ["a"]);
    assert_eq!(*redis.purged.lock().unwrap(), [""; 0], "whoever brought it knows");
}

#[tokio::test]
async fn the_last_model_is_recalled_after_a_restart() {
    let (stack, disk, _redis) = two_shelves();
    let (keys, before, space) = (keys(2), SpaceState::default(), at(1, &SpaceState::default()).space);
    for (key, model) in keys.iter().zip(["old", "new"]) {
        before.learn(model, 2, 0);
        keep(&stack, *key, &record(model));
        stack.note_newest(&space, &record(model), &before, stack.generation());
    }
    let after = SpaceState::default();
    let found = stack.look_below(&keys[..1], &at(1, &after), stack.generation()).await;
    assert!(matches!(found[..], [Found::Stale(_)]), "{found:?}");
    let found = stack.look_below(&keys[1..], &at(1, &after), stack.generation()).await;
    assert!(matches!(found[..], [Found::Fresh(..)]), "{found:?}");
    assert_eq!(disk.asked.lock().unwrap().iter().map(Vec::len).collect::<Vec<_>>(), [2, 1], "asked for once");
}

#[tokio::test]
async fn a_promoted_record_does_not_replace_one_fetched_meanwhile() {
    let (stack, upper, lower) = two_shelves();
    let (space_state, key) = (SpaceState::default(), keys(1)[0]);
    let made_at = |created_ms| {
        let vector = Vector::from_components(&[1.0, 2.0]).expect("it is a vector");
        let times = Times { created_ms, fresh_until_ms: 100, stale_until_ms: 200 };
        Arc::new(Record::new(vector, ModelIdentity { model: "a".into(), dimension: 2, revision: 0 }, times, None))
    };
    let bytes = bytes_under(&key, &made_at(1));
    lower.put(key, AtRest { bytes, until_ms: 200 });
    let begun = stack.generation();
    // This record is stored between the look-up in memory and the result of the slower tier.
    stack.remember(key, &made_at(2), begun);
    stack.look_below(&[key], &at(3, &space_state), begun).await;
    assert_eq!(stack.memory().peek(&key).map(|record| record.times.created_ms), Some(2));
    assert!(!upper.holds(&key));
}

#[tokio::test]
async fn the_newest_saved_model_of_all_tiers_is_recalled() {
    let (stack, disk, redis) = two_shelves();
    let (key, space) = (keys(1)[0], at(1, &SpaceState::default()).space);
    let at_rest = |key: &Key, model: &str, created_ms| {
        let vector = Vector::from_components(&[1.0, 2.0]).expect("it is a vector");
        let times = Times { created_ms, fresh_until_ms: 100, stale_until_ms: 200 };
        let record = Record::new(vector, ModelIdentity { model: model.into(), dimension: 2, revision: 0 }, times, None);
        AtRest { bytes: bytes_under(key, &record), until_ms: 200 }
    };
    // The local disk has seen the old model last, another replica the new one.
    disk.put(key, at_rest(&key, "old", 1));
    disk.put(newest_of(&space), at_rest(&newest_of(&space), "old", 1));
    redis.put(newest_of(&space), at_rest(&newest_of(&space), "new", 2));
    let space_state = SpaceState::default();
    let found = stack.look_below(&[key], &at(3, &space_state), stack.generation()).await;
    assert!(matches!(found[..], [Found::Stale(_)]), "{found:?}");
    assert_eq!(space_state.identity().map(|newest| newest.model.to_string()).as_deref(), Some("new"));
    assert_eq!(redis.asked.lock().unwrap().len(), 1, "one question for all of it");
}

#[tokio::test]
async fn a_missing_saved_model_is_looked_up_once() {
    let (stack, disk, redis) = two_shelves();
    let (key, space_state) = (keys(1)[0], SpaceState::default());
    disk.put(key, AtRest { bytes: bytes_under(&key, &record("a")), until_ms: 200 });
    for _ in 0..3 {
        let found = stack.look_below(&[key], &at(1, &space_state), stack.generation()).await;
        assert!(matches!(found[..], [Found::Fresh(_, Tier::Disk)]), "{found:?}");
    }
    assert_eq!(redis.asked.lock().unwrap().len(), 1, "what the disk has is asked of nobody else afterwards");
    // Another replica meets a newer model. The old model on the local disk must not hide it forever.
    let times = Times { created_ms: 2, fresh_until_ms: 100_000, stale_until_ms: 200_000 };
    let vector = Vector::from_components(&[1.0, 2.0]).expect("it is a vector");
    let newest = Record::new(vector, ModelIdentity { model: "b".into(), dimension: 2, revision: 0 }, times, None);
    let lookup = at(61_000, &space_state);
    let note = newest_of(&lookup.space);
    redis.put(note, AtRest { bytes: bytes_under(&note, &newest), until_ms: 200_000 });
    stack.look_below(&[key], &lookup, stack.generation()).await;
    assert_eq!(space_state.identity().map(|newest| newest.model.to_string()).as_deref(), Some("b"));
}

#[tokio::test]
async fn records_with_more_loss_than_the_codec_allows_are_misses() {
    let (stack, disk, redis) = two_shelves();
    let (space_state, key) = (SpaceState::default(), keys(1)[0]);
    let packed = |codec| {
        let vector = Vector::from_components(&[0.1, 0.7]).expect("it is a vector");
        let times = Times { created_ms: 0, fresh_until_ms: 100, stale_until_ms: 200 };
        let identity = ModelIdentity { model: "a".into(), dimension: 2, revision: 0 };
        Record::new(Packed::pack(&vector, codec), identity, times, None)
    };
    let at_rest = |codec| AtRest { bytes: bytes_under(&key, &packed(codec)), until_ms: 200 };
    let with = |codec| Lookup { codec, ..at(1, &space_state) };
    disk.put(key, at_rest(Codec::Int8));
    for codec in [Codec::Lossless, Codec::F32, Codec::Bf16] {
        let found = stack.look_below(&[key], &with(codec), stack.generation()).await;
        assert!(matches!(found[..], [Found::Missing]), "{codec:?}: {found:?}");
    }
    redis.put(key, at_rest(Codec::F32));
    let found = stack.look_below(&[key], &with(Codec::Lossless), stack.generation()).await;
    assert!(matches!(found[..], [Found::Fresh(_, Tier::Redis)]), "a better one further down counts: {found:?}");
    stack.remember(key, &Arc::new(packed(Codec::Int8)), stack.generation());
    assert!(matches!(stack.look_up(&key, &with(Codec::Lossless)), Found::Missing), "in memory, too");
    assert!(stack.look_up(&key, &with(Codec::Int8)).is_fresh());
}
