//! In-memory index from each key to its newest frame on disk.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::footer::KeyTag;

/// Number of locks, so readers seldom wait while another shard is changed.
const SHARDS: usize = 64;

/// Location of a value on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameLocation {
    pub(super) segment: u32,
    pub(super) offset: u32,
    /// Length of the value in bytes.
    pub(super) length: u32,
}

/// Key tag aligned to four bytes, which avoids padding: with its location and the map's control byte it takes 21 bytes
/// of a slot.
#[derive(Clone, Copy, PartialEq, Eq)]
struct IndexTag([u32; 2]);

impl From<KeyTag> for IndexTag {
    #[expect(clippy::cast_possible_truncation, reason = "both halves are kept")]
    fn from(KeyTag(tag): KeyTag) -> Self {
        Self([tag as u32, (tag >> 32) as u32])
    }
}

impl Hash for IndexTag {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from(self.0[0]) | u64::from(self.0[1]) << 32);
    }
}

/// Hasher that keeps tags unchanged. They are parts of hashes, so they are already evenly distributed.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

type Shard = HashMap<IndexTag, FrameLocation, BuildHasherDefault<AsItIs>>;

/// Index from tags to locations. If two keys have equal tags, which is unlikely within one store, the later entry hides
/// the earlier one.
pub(super) struct Index {
    shards: Box<[RwLock<Shard>]>,
}

impl Index {
    /// Creates an index with room for this many entries.
    pub(super) fn with_room(entries: usize) -> Self {
        // Tags are not spread exactly evenly, so each shard gets an eighth more.
        let room = entries / SHARDS + entries / (8 * SHARDS);
        let shard = |_| RwLock::new(Shard::with_capacity_and_hasher(room, BuildHasherDefault::default()));
        Self { shards: (0..SHARDS).map(shard).collect() }
    }

    pub(super) fn get(&self, tag: KeyTag) -> Option<FrameLocation> {
        self.read(tag).get(&tag.into()).copied()
    }

    pub(super) fn insert(&self, tag: KeyTag, location: FrameLocation) {
        self.write(tag).insert(tag.into(), location);
    }

    /// Removes a tag if it still points to this location. Returns true if it did.
    pub(super) fn remove(&self, tag: KeyTag, location: FrameLocation) -> bool {
        let mut shard = self.write(tag);
        // A newer frame may have been written since the caller looked the tag up.
        shard.get(&tag.into()) == Some(&location) && shard.remove(&tag.into()).is_some()
    }

    /// Removes all entries of a segment and returns how many there were.
    pub(super) fn remove_segment(&self, segment: u32) -> u64 {
        self.remove_where(|location| location.segment == segment)
    }

    /// Removes all entries and returns how many there were.
    pub(super) fn clear(&self) -> u64 {
        self.remove_where(|_| true)
    }

    fn remove_where(&self, goes: impl Fn(&FrameLocation) -> bool) -> u64 {
        let gone = self.shards.iter().map(|shard| {
            // One shard is locked at a time, so look-ups hardly wait for an eviction.
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            let before = shard.len();
            shard.retain(|_, location| !goes(location));
            (before - shard.len()) as u64
        });
        gone.sum()
    }

    pub(super) fn len(&self) -> u64 {
        let lengths = self.shards.iter().map(|shard| shard.read().unwrap_or_else(PoisonError::into_inner).len() as u64);
        lengths.sum()
    }

    fn read(&self, tag: KeyTag) -> RwLockReadGuard<'_, Shard> {
        self.shards[shard_of(tag)].read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, tag: KeyTag) -> RwLockWriteGuard<'_, Shard> {
        self.shards[shard_of(tag)].write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Chooses a shard by a middle byte, because the map inside uses the lowest and the highest bits.
fn shard_of(tag: KeyTag) -> usize {
    usize::from(tag.0.to_le_bytes()[5]) % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn location(segment: u32) -> FrameLocation {
        FrameLocation { segment, offset: 16, length: 1 }
    }

    #[test]
    fn an_index_slot_has_twenty_bytes() {
        assert_eq!(size_of::<(IndexTag, FrameLocation)>(), 20);
    }

    #[test]
    fn removing_a_segment_removes_the_entries_that_are_still_in_it() {
        let index = Index::with_room(10);
        for tag in 0..10 {
            index.insert(KeyTag(tag << 37), location(1));
        }
        index.insert(KeyTag(0), location(2));
        assert_eq!(index.remove_segment(1), 9);
        assert_eq!((index.len(), index.get(KeyTag(0))), (1, Some(location(2))));
        index.remove(KeyTag(0), location(1));
        assert_eq!(index.len(), 1, "another one lies there by now");
        assert_eq!(index.clear(), 1);
    }
}
