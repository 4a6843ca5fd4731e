//! The store: a log of segments in a folder, an in-memory index of it, and a file of purge counts.
//!
//! All functions block on the disk, except [`DiskStore::holds`] and [`DiskStore::stats`].

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::appender::{AppendContext, Appender, Segments};
use super::bounds::DiskBounds;
use super::folder::{self, OpenError, StoreFolder};
use super::footer::{FrameEntry, KeyTag};
use super::index::{FrameLocation, Index};
use super::opening::{self, FolderContents};
use super::purges;
use super::segment::Segment;
use crate::cache::AtRest;
use crate::cache::purges::{PurgeRegistry, SavedPurges};
use crate::key::Key;

/// Name of the file of purges.
const PURGES: &str = "purges";
/// Space reserved for the folder itself, the lock file and the file of [`DiskStore::probe`].
const ASIDE_BYTES: u64 = 3 << 19;

/// Size and eviction count of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Entries in the index, including expired and purged ones that have not been removed yet.
    pub entries: u64,
    /// Total size of all files.
    pub bytes: u64,
    /// Entries evicted to make room since the store was opened.
    pub evicted: u64,
}

/// Key-value store on disk.
pub struct DiskStore {
    folder: StoreFolder,
    bounds: DiskBounds,
    pub(super) index: Index,
    segments: Segments,
    appender: Mutex<Appender>,
    /// Held while the file of purges is written, so an older state never replaces a newer one.
    purging: Mutex<()>,
    purges_bytes: AtomicU64,
    evicted: AtomicU64,
    closed: AtomicBool,
}

impl DiskStore {
    /// Opens the store in a folder, creates the folder if needed, and locks it against other processes.
    pub fn open(path: &Path, max_bytes: u64) -> Result<Self, OpenError> {
        Self::open_within(path, DiskBounds { max_bytes, max_entries: u64::MAX })
    }

    /// Opens the store like [`DiskStore::open`], with a limit on the number of entries.
    pub fn open_within(path: &Path, bounds: DiskBounds) -> Result<Self, OpenError> {
        let folder = StoreFolder::take(path)?;
        Self::load(folder, bounds).map_err(|fault| OpenError::Unusable { path: path.to_owned(), fault })
    }

    fn load(folder: StoreFolder, bounds: DiskBounds) -> io::Result<Self> {
        // The purges are loaded first: without them all segments are removed, so none may be indexed before.
        let purges_bytes = Self::load_purges(&folder)?;
        let FolderContents { index, segments, appender } = opening::read(&folder, bounds)?;
        let store = Self {
            folder,
            bounds,
            index,
            segments: Segments::new(segments),
            appender: Mutex::new(appender),
            purging: Mutex::default(),
            purges_bytes: AtomicU64::new(purges_bytes),
            evicted: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        };
        // The bound may be smaller than that of the previous process.
        store.change(Appender::make_room)?;
        Ok(store)
    }

    /// Returns the size of the file of purges. If the file is missing or damaged, any entry may have been purged, so
    /// all segments are removed. A new file is synced to disk before the first segment is created.
    fn load_purges(folder: &StoreFolder) -> io::Result<u64> {
        let noted = folder::read(&folder.path().join(PURGES))?;
        if let Some(bytes) = noted.as_ref().filter(|bytes| purges::from_bytes(bytes).is_some()) {
            return Ok(bytes.len() as u64);
        }
        let segments = folder.list()?.segments.len();
        if segments > 0 {
            let state = if noted.is_some() { "damaged" } else { "missing" };
            tracing::warn!(segments, "the disk tier removes all entries, because its file of purges is {state}");
        }
        // Segments go before the new file exists: after a crash in between, the next start removes the rest.
        folder.remove_segments()?;
        let none = purges::to_bytes(&SavedPurges::default());
        folder.replace(PURGES, &none)?;
        Ok(none.len() as u64)
    }

    /// Fails if the disk has no room for `bytes` more bytes.
    pub fn probe(&self, bytes: usize) -> io::Result<()> {
        self.folder.probe(bytes)
    }

    /// Returns true if the index has an entry for this key. Does not access the disk.
    pub fn holds(&self, key: &Key) -> bool {
        self.index.get(KeyTag::from(key)).is_some()
    }

    /// Returns the value of a key and its expiry time. Entries that are expired at `now_ms`, damaged or of another key
    /// are removed from the index and reported as missing.
    pub fn get(&self, key: &Key, now_ms: u64) -> io::Result<Option<AtRest>> {
        let tag = KeyTag::from(key);
        let Some(location) = self.index.get(tag) else { return Ok(None) };
        // The segment may have been evicted since the index was read.
        let Some(segment) = self.segment(location.segment) else { return Ok(None) };
        match segment.entry(key, location.offset, location.length)? {
            Some((until_ms, bytes)) if now_ms < until_ms => Ok(Some(AtRest { bytes, until_ms })),
            _ => {
                self.index.remove(tag, location);
                Ok(None)
            }
        }
    }

    /// Stores one entry.
    pub fn put(&self, key: Key, entry: &AtRest) -> io::Result<()> {
        self.append([(&key, entry)].into_iter())
    }

    /// Stores entries with as few writes as possible. Evicts the oldest entries if there is no room. After an error,
    /// any part of the entries may be stored.
    pub fn append<'e>(&self, entries: impl Iterator<Item = (&'e Key, &'e AtRest)>) -> io::Result<()> {
        self.change(|appender, context| appender.append(context, entries))
    }

    /// Passes all entries in the index to `each`, the oldest first: key, expiry time, bytes. Does not block writers, so
    /// it may miss entries that are written meanwhile. Purged entries are included; the purge count in their bytes
    /// marks them.
    pub fn for_each<E: From<io::Error>>(
        &self,
        mut each: impl FnMut(&Key, u64, Bytes) -> Result<(), E>,
    ) -> Result<(), E> {
        // The numbers are copied, so no lock is held while the visitor runs.
        let numbers: Vec<u32> = self.lock_segments().keys().copied().collect();
        for number in numbers {
            let Some(segment) = self.segment(number) else { continue };
            for FrameEntry { tag, offset, length, .. } in self.frames_of(&segment)? {
                // Older frames of a key stay in the log until their segment is evicted, and are skipped.
                let is_newest = || self.index.get(tag) == Some(FrameLocation { segment: number, offset, length });
                if is_newest()
                    && let Some((head, bytes)) = segment.frame(offset, length)?
                    && !head.is_erased()
                {
                    each(&head.key, head.until_ms, bytes)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn frames_of(&self, segment: &Segment) -> io::Result<Vec<FrameEntry>> {
        // The growing segment has no footer yet. Its frames are in memory.
        let growing = self.lock_appender().growing(segment.number);
        growing.map_or_else(|| Ok(segment.contents()?.frames), Ok)
    }

    /// Returns the purges recorded in the folder.
    pub fn purges(&self) -> io::Result<SavedPurges> {
        Self::purges_in(self.path())
    }

    /// Returns the purges recorded in a folder, which may be locked by any process.
    pub fn purges_in(path: &Path) -> io::Result<SavedPurges> {
        let bytes = folder::read(&path.join(PURGES))?;
        // A damaged file counts as empty here. `load_purges` removes all segments in that case.
        Ok(bytes.and_then(|bytes| purges::from_bytes(&bytes)).unwrap_or_default())
    }

    /// Records all purges durably, so they survive a power failure. Returns the recorded state.
    pub fn note_purges(&self, purges: &PurgeRegistry) -> io::Result<SavedPurges> {
        let _one_at_a_time = self.purging.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = purges.to_save();
        let bytes = purges::to_bytes(&noted);
        self.folder.replace(PURGES, &bytes)?;
        self.purges_bytes.store(bytes.len() as u64, Ordering::Relaxed);
        Ok(noted)
    }

    /// Removes all entries and returns how many there were.
    pub fn clear(&self) -> io::Result<u64> {
        self.change(Appender::clear)
    }

    /// Removes all entries of a store that may be unreadable. Passes the recorded purges to `take_over` and records the
    /// state that it returns.
    pub fn wipe(path: &Path, take_over: impl FnOnce(&SavedPurges) -> SavedPurges) -> Result<(), OpenError> {
        let folder = StoreFolder::take(path)?;
        // Segments go first, because a full disk may lack room for a new file of purges.
        let wiped = folder.remove_segments().and_then(|()| {
            let noted = Self::purges_in(path)?;
            let taken_over = take_over(&noted);
            // An unchanged file is not written again, which could fail on a full disk.
            if taken_over == noted { Ok(()) } else { folder.replace(PURGES, &purges::to_bytes(&taken_over)) }
        });
        wiped.map_err(|fault| OpenError::Unusable { path: path.to_owned(), fault })
    }

    /// Seals the growing segment, waits until it is synced to disk, and unlocks the folder. Later writes fail. If a
    /// store is dropped without `close`, it opens more slowly next time.
    pub fn close(&self) -> io::Result<()> {
        let sealed = self.change(|appender, _| appender.seal());
        // Under this lock no write is under way, and later ones see that the store is closed.
        let _appender = self.lock_appender();
        self.closed.store(true, Ordering::SeqCst);
        // The argument of `and` is always evaluated, so the folder is unlocked even if sealing failed.
        sealed.and(self.folder.release())
    }

    /// Returns the size of the store. Does not access the disk.
    pub fn stats(&self) -> StoreStats {
        let bytes = self.lock_segments().values().map(|segment| segment.bytes()).sum::<u64>();
        let evicted = self.evicted.load(Ordering::Relaxed);
        StoreStats { entries: self.index.len(), bytes: bytes + self.purges_bytes.load(Ordering::Relaxed), evicted }
    }

    /// Returns the folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    fn change<T>(&self, act: impl FnOnce(&mut Appender, &AppendContext<'_>) -> io::Result<T>) -> io::Result<T> {
        let mut appender = self.lock_appender();
        if self.closed.load(Ordering::SeqCst) {
            return Err(io::Error::other("the store is closed"));
        }
        // While the file of purges is replaced, it exists twice.
        let aside_bytes = ASIDE_BYTES + 2 * self.purges_bytes.load(Ordering::Relaxed);
        let Self { folder, bounds, index, segments, .. } = self;
        let done = act(&mut appender, &AppendContext { folder, segments, index, bounds: *bounds, aside_bytes });
        // Copied, so `stats` never waits for the lock of a slow write.
        self.evicted.store(appender.evicted(), Ordering::Relaxed);
        done
    }

    pub(super) fn segment(&self, number: u32) -> Option<Arc<Segment>> {
        self.lock_segments().get(&number).cloned()
    }

    /// Adds any segment, so tests can check how errors are handled.
    #[cfg(test)]
    pub(super) fn add_segment(&self, segment: Segment) {
        self.segments.write().unwrap_or_else(PoisonError::into_inner).insert(segment.number, Arc::new(segment));
    }

    pub(super) fn lock_segments(
        &self,
    ) -> std::sync::RwLockReadGuard<'_, std::collections::BTreeMap<u32, Arc<Segment>>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lock_appender(&self) -> MutexGuard<'_, Appender> {
        self.appender.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskStore").field("path", &self.path()).field("stats", &self.stats()).finish_non_exhaustive()
    }
}
