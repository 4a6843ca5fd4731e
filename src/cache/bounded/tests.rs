use std::sync::Arc;

use super::map::ENTRY_OVERHEAD_BYTES;
use super::*;
use crate::key::{Key, KeyBuilder, Tag};

#[derive(Clone)]
struct Sized(u64, Arc<Mark>);

impl Entry for Sized {
    fn weight_bytes(&self) -> u64 {
        self.0
    }

    fn mark(&self) -> Option<&Mark> {
        Some(&self.1)
    }
}

fn sized(bytes: u64) -> Sized {
    Sized(bytes, Arc::default())
}

fn key(n: u64) -> Key {
    KeyBuilder::new(None).part(Tag::Text, &n.to_le_bytes()).finish()
}

fn bounded(max_bytes: u64, max_entries: Option<u64>) -> Bounded<Sized> {
    Bounded::new(MapBounds { max_bytes, max_entries }, 4)
}

#[test]
fn bytes_stay_under_their_bound() {
    let map = bounded(1_000_000, None);
    for n in 0..5_000 {
        map.insert(key(n), sized(6_144));
    }
    assert!(map.bytes() <= 1_000_000, "{}", map.bytes());
    assert!(map.len() > 100, "{}", map.len());
    assert!(map.evicted() > 0);
}

#[test]
fn entries_stay_under_their_bound() {
    let map = bounded(1_000_000, Some(10));
    for n in 0..100 {
        map.insert(key(n), sized(8));
    }
    assert!(map.len() <= 10, "{}", map.len());
}

#[test]
fn the_bound_on_entries_is_reached_exactly() {
    for most in [1, 2, 1_000] {
        let map = Bounded::new(MapBounds { max_bytes: 10_000_000, max_entries: Some(most) }, 16);
        for n in 0..most {
            map.insert(key(n), sized(8));
        }
        assert_eq!((map.len(), map.evicted()), (most, 0));
        map.insert(key(most), sized(8));
        assert_eq!((map.len(), map.evicted()), (most, 1));
        assert_eq!(map.bytes(), most * (8 + ENTRY_OVERHEAD_BYTES), "as large as they are");
    }
}

#[test]
fn replacing_a_value_is_not_counted_as_an_eviction() {
    let map = bounded(1_000_000, None);
    for bytes in [100, 50, 200] {
        map.insert(key(1), sized(bytes));
    }
    assert_eq!((map.len(), map.evicted(), map.bytes()), (1, 0, 200 + ENTRY_OVERHEAD_BYTES));
    map.clear();
    assert_eq!((map.len(), map.evicted(), map.bytes()), (0, 0, 0));
}

#[test]
fn shedding_frees_about_the_requested_bytes() {
    let map = bounded(10_000_000, None);
    for n in 0..1_000 {
        map.insert(key(n), sized(1_000));
    }
    let before = map.bytes();
    let freed = map.shed(200_000);
    assert!((200_000..210_000).contains(&freed), "{freed}");
    assert_eq!(map.bytes(), before - freed);
    assert_eq!(map.evicted(), 1_000 - map.len());
}

/// Returns a map of entries `0..200`. The even ones were read.
fn half_read() -> Bounded<Sized> {
    let map = bounded(10_000_000, None);
    for n in 0..200 {
        map.insert(key(n), sized(1_000 - ENTRY_OVERHEAD_BYTES));
    }
    assert!((0..200).step_by(2).all(|n| map.get(&key(n)).is_some()));
    map
}

fn left(map: &Bounded<Sized>, numbers: impl Iterator<Item = u64>) -> usize {
    numbers.filter(|n| map.holds(&key(*n))).count()
}

#[test]
fn shedding_removes_unread_new_entries_first() {
    let map = half_read();
    assert_eq!(map.shed(50_000), 50_000);
    assert_eq!(left(&map, (0..100).chain((100..200).step_by(2))), 150);
    assert_eq!(map.shed(50_000), 50_000);
    assert_eq!(left(&map, (0..200).step_by(2)), 100);
}

#[test]
fn a_shed_key_that_is_inserted_again_outlives_new_entries() {
    let map = half_read();
    map.shed(100_000);
    // Those that come again come last, so that by their order alone they would go first.
    for n in [200, 201, 202, 1, 3, 5] {
        map.insert(key(n), sized(1_000 - ENTRY_OVERHEAD_BYTES));
    }
    map.shed(3_000);
    assert_eq!((left(&map, [1, 3, 5].into_iter()), left(&map, 200..203)), (3, 0));
}

#[test]
fn a_replaced_value_outlives_new_entries() {
    let map = half_read();
    for n in [200, 201, 202, 1, 3, 5] {
        map.insert(key(n), sized(1_000 - ENTRY_OVERHEAD_BYTES));
    }
    map.shed(3_000);
    assert_eq!((left(&map, [1, 3, 5].into_iter()), left(&map, 200..203)), (3, 0));
}

#[test]
fn entries_that_were_read_once_are_evicted_eventually() {
    let map = half_read();
    // Some even entries are shed, and the remaining ones count as unread.
    map.shed(150_000);
    assert_eq!(left(&map, 0..200), 50);
    for n in 300..310 {
        map.insert(key(n), sized(1_000 - ENTRY_OVERHEAD_BYTES));
        assert!(map.get(&key(n)).is_some());
    }
    map.shed(50_000);
    assert_eq!((left(&map, 0..200), left(&map, 300..310)), (0, 10));
}

#[test]
fn removal_by_condition_is_counted_but_not_as_an_eviction() {
    let map = bounded(1_000_000, None);
    for n in 0..10 {
        map.insert(key(n), sized(n));
    }
    assert_eq!(map.remove_where(|value| value.weight_bytes() < 4), 4);
    let left: u64 = (4..10).map(|bytes| bytes + ENTRY_OVERHEAD_BYTES).sum();
    assert_eq!((map.len(), map.bytes(), map.evicted()), (6, left, 0));
    map.remove(&key(9));
    assert_eq!((map.len(), map.bytes()), (5, left - 9 - ENTRY_OVERHEAD_BYTES));
}
