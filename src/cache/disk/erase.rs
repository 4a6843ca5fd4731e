//! Erases the entries of forgotten inputs. Their vectors reveal their texts, so the bytes are overwritten.

use std::collections::HashSet;
use std::io;

use super::DiskStore;
use super::footer::{FrameEntry, KeyTag};
use super::index::FrameLocation;
use crate::key::Key;

impl DiskStore {
    /// Overwrites all entries of these keys, also older ones that later entries have replaced. Returns the number of
    /// entries that could be found until now. Reads the list of entries of every segment. Entries of these keys that
    /// are appended meanwhile may stay.
    pub fn erase(&self, keys: &[Key]) -> io::Result<u64> {
        let keys: HashSet<Key> = keys.iter().copied().collect();
        let tags: HashSet<KeyTag> = keys.iter().map(KeyTag::from).collect();
        // An append that began before has ended once this lock is free, so its entries are in these segments.
        let appender = self.lock_appender();
        let numbers: Vec<u32> = self.lock_segments().keys().copied().collect();
        drop(appender);
        let mut found = 0;
        for number in numbers {
            // A segment that was evicted meanwhile holds no entry any more.
            let Some(segment) = self.segment(number) else { continue };
            let frames = self.frames_of(&segment)?.into_iter().filter(|frame| tags.contains(&frame.tag));
            let mut has_erased = false;
            for FrameEntry { tag, offset, length, .. } in frames {
                if segment.erase(offset, &keys)? {
                    has_erased = true;
                    found += u64::from(self.index.remove(tag, FrameLocation { segment: number, offset, length }));
                }
            }
            if has_erased {
                segment.sync()?;
            }
        }
        Ok(found)
    }
}
