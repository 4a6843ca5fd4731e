//! Tests of the store, each in a folder of its own.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;

use super::segment::Segment;
use super::{DiskBounds, DiskStore, OpenError};
use crate::cache::AtRest;
use crate::cache::purges::{EVERYTHING, PurgeCounts, PurgeRegistry, SavedPurges, UnsentPurges};
use crate::key::{Key, KeyBuilder, Tag};

const MIB: u64 = 1 << 20;

/// Temporary folder that is removed with the test.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("vecho-store-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        // An earlier process with the same id may have left a folder behind.
        fs::remove_dir_all(&path).ok();
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn open(&self) -> DiskStore {
        DiskStore::open(&self.0, 16 * MIB).expect("it must open")
    }

    pub(super) fn segments(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(&self.0).expect("it is there").map(|file| file.expect("it can be read").path());
        let mut segments: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "segment")).collect();
        segments.sort();
        segments
    }

    fn bytes(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        let files = fs::read_dir(&self.0).expect("it is there").map(|file| file.expect("it can be read"));
        files.map(|file| file.metadata().expect("it is there").blocks() * 512).sum()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn key(n: u32) -> Key {
    KeyBuilder::new(None).part(Tag::Text, &n.to_le_bytes()).finish()
}

/// Returns an entry with a value that depends on `n`.
fn entry(n: u32, length: usize) -> AtRest {
    let mut bytes = vec![0; length];
    key(n).stream().fill(&mut bytes);
    AtRest { bytes: Bytes::from(bytes), until_ms: 1_000 + u64::from(n) }
}

fn put(store: &DiskStore, numbers: impl Iterator<Item = u32>) {
    let entries: Vec<_> = numbers.map(|n| (key(n), entry(n, 3_000))).collect();
    store.append(entries.iter().map(|(key, entry)| (key, entry))).expect("it must be written");
}

fn found(store: &DiskStore, numbers: impl Iterator<Item = u32>) -> Vec<u32> {
    let is_there = |n: &u32| store.get(&key(*n), 0).expect("it can be read").is_some_and(|got| got == entry(*n, 3_000));
    numbers.filter(is_there).collect()
}

fn all(count: u32) -> Vec<u32> {
    (0..count).collect()
}

fn flip(path: &PathBuf, byte: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("it is there");
    let mut found = [0];
    file.read_exact_at(&mut found, byte).expect("it is that long");
    file.write_all_at(&[found[0] ^ 4], byte).expect("it can be written");
}

#[test]
fn stored_entries_are_found_and_later_ones_replace_earlier_ones() {
    let folder = Folder::new();
    let store = folder.open();
    put(&store, 0..10);
    assert_eq!((found(&store, 0..11), store.holds(&key(10))), (all(10), false));
    store.put(key(3), &entry(77, 50)).expect("it must be written");
    assert_eq!(store.get(&key(3), 0).expect("it can be read"), Some(entry(77, 50)));
    assert_eq!(store.stats().entries, 10);
}

#[test]
fn expired_entries_are_missing() {
    let folder = Folder::new();
    let store = folder.open();
    put(&store, 0..2);
    assert!(store.get(&key(0), 999).expect("it can be read").is_some());
    assert!(store.get(&key(0), 1_000).expect("it can be read").is_none());
    assert!(!store.holds(&key(0)) && store.holds(&key(1)));
}

#[test]
fn a_closed_store_reopens_with_all_entries_and_accepts_more() {
    let folder = Folder::new();
    for round in 0..5 {
        let store = folder.open();
        assert_eq!(found(&store, 0..500), all(round * 100));
        put(&store, round * 100..round * 100 + 100);
        store.close().expect("it must close");
    }
    assert_eq!(folder.segments().len(), 2, "a segment that has room is filled up");
    assert_eq!(found(&folder.open(), 0..500), all(500));
}

#[test]
fn a_store_that_was_not_closed_reopens_with_all_entries() {
    let folder = Folder::new();
    for round in 0..5 {
        let store = folder.open();
        assert_eq!(found(&store, 0..500), all(round * 100));
        put(&store, round * 100..round * 100 + 100);
    }
}

#[test]
fn a_torn_segment_end_loses_only_the_torn_entry() {
    let folder = Folder::new();
    let store = folder.open();
    put(&store, 0..10);
    drop(store);
    let [segment] = &folder.segments()[..] else { panic!("there is one") };
    let file = OpenOptions::new().write(true).open(segment).expect("it is there");
    file.set_len(file.metadata().expect("it is there").len() - 1).expect("it can be cut");
    let store = folder.open();
    assert_eq!(found(&store, 0..10), all(9));
    let length = fs::metadata(segment).expect("it is there").len();
    assert_eq!(length, 16 + 9 * (64 + 3_000), "what is of no use takes no room");
    put(&store, 9..20);
    drop(store);
    assert_eq!(found(&folder.open(), 0..20), all(20), "what comes later follows the last whole one");
}

#[test]
fn entries_after_a_damaged_one_do_not_return_when_it_is_overwritten() {
    let folder = Folder::new();
    put(&folder.open(), 0..3);
    flip(&folder.segments()[0], 16 + 64 + 3_000);
    // The second has the place of the damaged one now, up to the third.
    put(&folder.open(), 3..4);
    assert_eq!(found(&folder.open(), 0..4), [0, 3]);
}

#[test]
fn a_damaged_footer_loses_no_entries() {
    let folder = Folder::new();
    let store = folder.open();
    put(&store, 0..1_000);
    store.close().expect("it must close");
    for segment in folder.segments() {
        let length = fs::metadata(&segment).expect("it is there").len();
        for back in [1, 20, 39, 50] {
            flip(&segment, length - back);
        }
    }
    assert_eq!(found(&folder.open(), 0..1_000), all(1_000));
}

#[test]
fn damaged_frames_are_never_read_as_other_entries() {
    let folder = Folder::new();
    let store = folder.open();
    put(&store, 0..1_000);
    store.close().expect("it must close");
    for (n, segment) in folder.segments().into_iter().enumerate() {
        let length = fs::metadata(&segment).expect("it is there").len();
        for place in 0..40 {
            flip(&segment, (place * 7_919 + n as u64 * 31) * 97 % length);
        }
    }
    let store = folder.open();
    let mut whole = 0;
    for n in 0..1_000 {
        // The checksum of a value is verified by the stack; the store guarantees only length and expiry time.
        if let Some(got) = store.get(&key(n), 0).expect("it can be read") {
            assert_eq!((got.bytes.len(), got.until_ms), (3_000, 1_000 + u64::from(n)));
            whole += 1;
        }
    }
    assert!(whole > 500, "{whole}");
}

#[test]
fn a_key_with_the_same_tag_does_not_find_another_entry() {
    let folder = Folder::new();
    let store = folder.open();
    put(&store, 0..1);
    let mut like = *key(0).as_bytes();
    like[0] ^= 1;
    let like = Key::from_bytes(like);
    assert!(store.holds(&like), "the index cannot tell them apart");
    assert_eq!(store.get(&like, 0).expect("it can be read"), None);
}

#[test]
fn the_oldest_entries_are_evicted_and_the_bound_always_holds() {
    let folder = Folder::new();
    let store = folder.open();
    for batch in 0..150 {
        put(&store, batch * 100..batch * 100 + 100);
        assert!(folder.bytes() <= 16 * MIB, "{} after {batch}", folder.bytes());
        assert!(store.stats().bytes <= 16 * MIB);
    }
    let left = found(&store, 0..15_000);
    assert_eq!(left, (15_000 - u32::try_from(left.len()).expect("few")..15_000).collect::<Vec<_>>());
    assert!(left.len() > 4_000, "{}", left.len());
    assert_eq!(store.stats().evicted + left.len() as u64, 15_000);
    store.close().expect("it must close");
    assert_eq!(found(&folder.open(), 0..15_000), left, "a restart costs none");
}

#[test]
fn a_smaller_bound_evicts_the_oldest_entries_at_once() {
    let folder = Folder::new();
    let store = DiskStore::open(&folder.0, 64 * MIB).expect("it must open");
    put(&store, 0..15_000);
    drop(store);
    let store = folder.open();
    assert!(folder.bytes() <= 16 * MIB, "{}", folder.bytes());
    assert!(store.holds(&key(14_999)) && !store.holds(&key(0)));
}

#[test]
fn entries_are_bounded_in_number() {
    let folder = Folder::new();
    let bounds = DiskBounds { max_bytes: 16 * MIB, max_entries: 1_000 };
    let store = DiskStore::open_within(&folder.0, bounds).expect("it must open");
    put(&store, 0..4_000);
    assert!((700..1_400).contains(&store.stats().entries), "{:?}", store.stats());
    assert!(store.holds(&key(3_999)) && !store.holds(&key(0)));
}

#[test]
fn entries_larger_than_a_segment_are_skipped() {
    let folder = Folder::new();
    let store = folder.open();
    let entries = [(key(0), entry(0, 2 << 20)), (key(1), entry(1, 3_000))];
    store.append(entries.iter().map(|(key, entry)| (key, entry))).expect("the other one must be written");
    assert_eq!((found(&store, 0..2), store.holds(&key(0))), (vec![1], false));
}

#[test]
fn a_folder_has_one_store_at_a_time() {
    let folder = Folder::new();
    let store = folder.open();
    assert!(matches!(DiskStore::open(&folder.0, 16 * MIB), Err(OpenError::Held(_))));
    store.close().expect("it must close");
    let other = folder.open();
    put(&other, 0..1);
    assert!(store.put(key(1), &entry(1, 9)).is_err(), "a closed store leaves the folder alone");
}

#[test]
fn iteration_visits_every_stored_entry_oldest_first() {
    let folder = Folder::new();
    let store = folder.open();
    put(&store, (0..1_000).chain([5]));
    let mut seen = Vec::new();
    let each = |key: &Key, until_ms: u64, bytes: Bytes| {
        let n = u32::try_from(until_ms - 1_000).expect("it is small");
        assert_eq!((*key, bytes), (self::key(n), entry(n, 3_000).bytes));
        seen.push(n);
        Ok::<_, io::Error>(())
    };
    store.for_each(each).expect("it can be read");
    assert_eq!(seen, (0..5).chain(6..1_000).chain([5]).collect::<Vec<_>>());
    let stopped = store.for_each(|_, _, _| Err(io::Error::other("enough")));
    assert!(stopped.is_err());
}

#[test]
fn a_cleared_store_stays_empty_after_reopening() {
    let folder = Folder::new();
    let store = folder.open();
    put(&store, 0..1_000);
    assert_eq!(store.clear().expect("it must go"), 1_000);
    assert_eq!((found(&store, 0..1_000), folder.segments().len()), (vec![], 0));
    put(&store, 1_000..1_001);
    drop(store);
    assert_eq!(found(&folder.open(), 0..1_001), [1_000]);
    let unsent = UnsentPurges::from([("everything".to_owned(), 1)]);
    let noted = SavedPurges { unsent, ..SavedPurges::default() };
    DiskStore::wipe(&folder.0, |_| noted.clone()).expect("it must go");
    let store = folder.open();
    assert_eq!((store.stats().entries, store.purges().expect("it can be read")), (0, noted));
}

#[test]
fn saved_purges_persist_and_damage_to_them_purges_everything() {
    let folder = Folder::new();
    let (store, purges) = (folder.open(), PurgeRegistry::default());
    assert_eq!(store.purges().expect("it can be read"), SavedPurges::default());
    put(&store, 0..10);
    purges.raise(None, 0);
    purges.raise(Some("a"), 0);
    store.note_purges(&purges).expect("they can be noted");
    drop(store);
    let store = folder.open();
    let counts = PurgeCounts::from([(EVERYTHING.to_owned(), 1), ("a".to_owned(), 1)]);
    let noted = SavedPurges { counts, ..SavedPurges::default() };
    assert_eq!((store.purges().expect("it can be read"), store.stats().entries), (noted, 10));
    drop(store);
    flip(&folder.0.join("purges"), 20);
    let store = folder.open();
    assert_eq!((store.purges().expect("it can be read"), store.stats().entries), (SavedPurges::default(), 0));
}

#[test]
fn unreadable_segments_are_deleted_and_unrelated_files_are_kept() {
    let folder = Folder::new();
    drop(folder.open());
    let old = folder.0.join("0000000007.segment");
    let strange = folder.0.join("7.segment");
    fs::write(&old, "vecho segment 9\nfrom a time to come").expect("it can be written");
    fs::write(&strange, "x").expect("it can be written");
    let store = folder.open();
    assert!(!old.exists() && strange.exists());
    put(&store, 0..1);
    assert_eq!(found(&store, 0..1), [0]);
}

#[test]
fn segment_numbers_at_the_end_of_their_range_do_not_stop_the_store() {
    for number in [u32::MAX - 1, u32::MAX] {
        let folder = Folder::new();
        drop(folder.open());
        Segment::create(&folder.0.join(format!("{number}.segment")), number).expect("it can be made");
        let store = folder.open();
        for batch in 0..20 {
            put(&store, batch * 100..batch * 100 + 100);
        }
        let left = found(&store, 0..2_000);
        assert!(left.len() > 300 && left.last() == Some(&1_999), "{left:?}");
        assert_eq!(store.stats().evicted + left.len() as u64, 2_000);
        assert!(folder.segments()[0].ends_with("0000000001.segment"), "{:?}", folder.segments());
        store.close().expect("it must close");
        assert_eq!(found(&folder.open(), 0..2_000), left, "the order of the segments is their age");
    }
}

#[test]
fn a_failed_write_is_reported_and_stored_entries_stay_readable() {
    let folder = Folder::new();
    let store = folder.open();
    put(&store, 0..10);
    let full = File::options().read(true).write(true).open("/dev/full").expect("Linux has it");
    store.lock_appender().go_on_in(Arc::new(Segment::over(full)));
    let fault = store.put(key(10), &entry(10, 3_000)).expect_err("there is no room");
    assert_eq!(fault.kind(), io::ErrorKind::StorageFull);
    assert_eq!(found(&store, 0..11), all(10));
}

#[test]
fn a_folder_that_vanishes_is_an_error_and_no_panic() {
    let folder = Folder::new();
    let store = folder.open();
    put(&store, 0..10);
    fs::remove_dir_all(&folder.0).expect("it can go");
    let entries: Vec<_> = (0..1_000).map(|n| (key(n), entry(n, 3_000))).collect();
    assert!(store.append(entries.iter().map(|(key, entry)| (key, entry))).is_err());
    assert!(store.note_purges(&PurgeRegistry::default()).is_err());
    assert!(store.probe(1).is_err());
}

#[test]
fn a_file_in_place_of_the_folder_is_reported_as_unusable() {
    let folder = Folder::new();
    fs::write(&folder.0, "x").expect("it can be written");
    let fault = DiskStore::open(&folder.0, 16 * MIB).expect_err("it is a file");
    assert!(matches!(fault, OpenError::Unusable { .. }) && fault.to_string().contains("cannot be used"), "{fault}");
    fs::remove_file(&folder.0).expect("it can go");
}
