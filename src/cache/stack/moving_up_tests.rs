//! Tests of promotion, of tiers that are down, and of purges.

use std::sync::Arc;

use super::tests::{Shelf, at, bytes_under, keep, keys, over, record, two_shelves};
use super::*;
use crate::cache::at_rest::{self, ChecksumKeys};
use crate::cache::purges::{PurgeCounts, PurgeNews, PurgeStamp, PurgeSubject};
use crate::cache::{AtRest, LowerTier, Record, Tier, Times};
use crate::learned::{ModelIdentity, SpaceState};
use crate::vector::Vector;

fn made_at(created_ms: u64) -> Record {
    let vector = Vector::from_components(&[1.0, 2.0]).expect("it is a vector");
    let times = Times { created_ms, fresh_until_ms: 100, stale_until_ms: 200 };
    Record::new(vector, ModelIdentity { model: "a".into(), dimension: 2, revision: 0 }, times, None)
}

#[tokio::test]
async fn the_stale_record_of_the_upper_tier_is_preferred() {
    let (stack, disk, redis) = two_shelves();
    let (key, space_state) = (keys(1)[0], SpaceState::default());
    for (shelf, created_ms) in [(&disk, 2), (&redis, 1)] {
        shelf.put(key, AtRest { bytes: bytes_under(&key, &made_at(created_ms)), until_ms: 200 });
    }
    let found = stack.look_below(&[key], &at(150, &space_state), stack.generation()).await;
    assert!(matches!(&found[..], [Found::Stale(record)] if record.times.created_ms == 2), "{found:?}");
}

#[tokio::test]
async fn promotion_does_not_rewrite_the_tier_that_held_the_record() {
    let (stack, disk, redis) = two_shelves();
    let (key, space_state) = (keys(1)[0], SpaceState::default());
    let until_ms = 12_345;
    redis.put(key, AtRest { bytes: bytes_under(&key, &record("a")), until_ms });
    assert!(stack.look_below(&[key], &at(1, &space_state), stack.generation()).await[0].is_fresh());
    assert!(disk.holds(&key));
    assert_eq!(redis.until_ms(&key), Some(until_ms), "it is as it was");
}

#[tokio::test]
async fn records_with_a_higher_purge_count_are_promoted_to_memory_only() {
    let (stack, disk, redis) = two_shelves();
    let (keys, space_state, found) = (keys(1), SpaceState::default(), record("a"));
    let bytes = at_rest::to_bytes(&found, 1, &ChecksumKeys::default().of(&keys[0]));
    redis.put(keys[0], AtRest { bytes: bytes.into(), until_ms: 200 });
    let below = stack.look_below(&keys, &at(1, &space_state), stack.generation()).await;
    assert!(below[0].is_fresh() && stack.look_up(&keys[0], &at(1, &space_state)).is_fresh());
    assert!(!disk.holds(&keys[0]), "a purge of this process may end at that very count");
}

#[tokio::test]
async fn the_count_of_a_forgotten_key_matters_only_until_it_ends() {
    for (now_ms, is_promoted) in [(49, false), (50, true)] {
        let (stack, disk, redis) = two_shelves();
        let (keys, space_state) = (keys(1), SpaceState::default());
        let stamp = PurgeStamp { models: 0, input: 50 };
        let bytes = at_rest::to_bytes(&record("a"), stamp, &ChecksumKeys::default().of(&keys[0]));
        redis.put(keys[0], AtRest { bytes: bytes.into(), until_ms: 200 });
        let below = stack.look_below(&keys, &at(now_ms, &space_state), stack.generation()).await;
        assert!(below[0].is_fresh());
        assert_eq!(disk.holds(&keys[0]), is_promoted, "at {now_ms}");
    }
}

#[tokio::test]
async fn records_found_in_a_lower_tier_are_promoted() {
    let (stack, disk, redis) = two_shelves();
    let (keys, space_state) = (keys(1), SpaceState::default());
    keep(&stack, keys[0], &record("a"));
    disk.entries.lock().unwrap().clear();
    stack.look_below(&keys, &at(1, &space_state), stack.generation()).await;
    assert!(matches!(stack.look_up(&keys[0], &at(1, &space_state)), Found::Fresh(_, Tier::Memory)));
    assert_eq!(*disk.entries.lock().unwrap(), *redis.entries.lock().unwrap());
}

#[tokio::test]
async fn the_newest_model_is_looked_up_again_while_a_tier_is_down() {
    let (stack, disk, redis) = two_shelves();
    let (keys, space_state) = (keys(1), SpaceState::default());
    keep(&stack, keys[0], &record("a"));
    let asked_for = async |now_ms| {
        stack.look_below(&keys, &at(now_ms, &space_state), stack.generation()).await;
        disk.last_question() == Some(2)
    };
    redis.set_up(false);
    assert!(asked_for(1).await);
    assert!(asked_for(2).await, "one that is down has not answered");
    redis.set_up(true);
    assert!(asked_for(3).await);
    assert!(!asked_for(4).await, "both have answered");
}

#[test]
fn redis_may_hold_records_of_older_models_but_an_empty_disk_cannot() {
    let (disk, redis) = (Shelf::new(Tier::Disk), Shelf::new(Tier::Redis));
    assert!(!over(Vec::new()).may_hold_older());
    assert!(!over(vec![disk as Arc<dyn LowerTier>]).may_hold_older());
    assert!(over(vec![redis as Arc<dyn LowerTier>]).may_hold_older());
}

#[test]
fn a_purge_starts_a_new_generation_before_and_after_its_count_changes() {
    let stack = over(Vec::new());
    let before = stack.generation();
    let during = stack.between_generations(&[PurgeSubject::of_model(Some("a"))], || stack.generation());
    let after = stack.generation();
    for (begun, until) in [(before, during), (during, after)] {
        assert_ne!(begun, until);
        assert!(!stack.remember(keys(1)[0], &record("a"), begun), "what began then is not kept");
    }
    assert!(stack.remember(keys(1)[0], &record("a"), after));
}

#[test]
fn fetches_that_began_before_memory_was_cleared_are_not_stored() {
    let stack = over(Vec::new());
    let (key, begun) = (keys(1)[0], stack.generation());
    assert!(stack.remember(key, &record("a"), begun));
    assert_eq!(stack.purge_memory(Some("a")), 1);
    assert!(!stack.remember(key, &record("a"), begun));
    assert!(stack.memory().peek(&key).is_none());
}

#[tokio::test]
async fn new_purges_of_other_replicas_are_saved_before_they_apply() {
    let (stack, disk, _redis) = two_shelves();
    let elsewhere = PurgeNews::from(PurgeCounts::from([("a".to_owned(), 2)]));
    stack.note_ahead(&elsewhere).await;
    assert_eq!((stack.purges.to_save().counts, stack.purges.of(&["a"])), (elsewhere.counts.clone(), 0));
    assert_eq!(*disk.purged.lock().unwrap(), ["ahead"]);
    assert_eq!(stack.learn_purges(&elsewhere, Tier::Redis).len(), 1);
    stack.note_ahead(&elsewhere).await;
    assert_eq!(disk.purged.lock().unwrap().len(), 1);
}
