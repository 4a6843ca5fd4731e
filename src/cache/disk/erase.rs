//! Erases the entries of forgotten inputs. Their vectors reveal their texts, so the bytes are overwritten.

use std::collections::HashSet;
use std::io;

use super::DiskStore;
use super::footer::{FrameEntry, KeyTag};
use super::index::FrameLocation;
use super::segment::Segment;
use crate::key::Key;

/// Outcome of an erasure.
#[derive(Debug, Default)]
pub struct Erased {
    /// Number of erased entries that could be found until now.
    pub found: u64,
    /// The first error. Other segments are erased nevertheless.
    pub fault: Option<io::Error>,
}

impl DiskStore {
    /// Overwrites all entries of these keys, also older ones that later entries have replaced. Reads the list of entries
    /// of every segment. Entries of these keys that are put meanwhile may stay.
    pub fn erase(&self, keys: &[Key]) -> Erased {
        let keys: HashSet<Key> = keys.iter().copied().collect();
        let tags: HashSet<KeyTag> = keys.iter().map(KeyTag::from).collect();
        // An append that began before has ended once this lock is free, so its entries are in these segments.
        let appender = self.lock_appender();
        let numbers: Vec<u32> = self.lock_segments().keys().copied().collect();
        drop(appender);
        let mut erased = Erased::default();
        for number in numbers {
            // A segment that was evicted meanwhile holds no entry any more.
            let Some(segment) = self.segment(number) else { continue };
            if let Err(fault) = self.erase_in(&segment, (&keys, &tags), &mut erased.found) {
                erased.fault.get_or_insert(fault);
            }
        }
        erased
    }

    fn erase_in(
        &self,
        segment: &Segment,
        (keys, tags): (&HashSet<Key>, &HashSet<KeyTag>),
        found: &mut u64,
    ) -> io::Result<()> {
        let frames = self.frames_of(segment)?.into_iter().filter(|frame| tags.contains(&frame.tag));
        let mut has_erased = false;
        for FrameEntry { tag, offset, length, .. } in frames {
            if segment.erase(offset, keys)? {
                has_erased = true;
                *found += u64::from(self.index.remove(tag, FrameLocation { segment: segment.number, offset, length }));
            }
        }
        if has_erased { segment.sync() } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use bytes::Bytes;

    use super::*;
    use crate::cache::AtRest;
    use crate::cache::disk::tests::Folder;

    #[test]
    fn a_segment_that_cannot_be_read_does_not_keep_the_others_from_being_erased() {
        let folder = Folder::new();
        let (store, keys) = (folder.open(), [1, 2].map(|n| Key::from_bytes([n; 32])));
        for key in keys {
            store.put(key, &AtRest { bytes: Bytes::from_static(b"x"), until_ms: 1 }).expect("it must be written");
        }
        // A file that is open for writing only.
        store.add_segment(Segment::over(File::create(folder.path().join("unreadable")).expect("it can be created")));
        let erased = store.erase(&keys[..1]);
        assert!(erased.fault.is_some());
        assert_eq!((erased.found, keys.map(|key| store.holds(&key))), (1, [false, true]));
    }
}
