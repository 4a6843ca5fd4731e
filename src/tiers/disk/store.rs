//! The store: a log of segments in a folder, an index of it in memory, and the counts of purges beside it.
//!
//! All of it blocks on the disk, but for [`DiskStore::holds`] and [`DiskStore::stats`].

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::appender::{Appender, Ground, Segments};
use super::folder::{self, Folder, OpenError};
use super::footer::{Lying, Tag};
use super::index::{Index, Place};
use super::opening::{self, Opened};
use super::purges;
use super::segment::Segment;
use crate::epochs::{Epochs, Noted};
use crate::key::Key;
use crate::tiers::AtRest;

/// The file of purges.
const PURGES: &str = "purges";
/// Room for the folder itself, the lock and what is written to see whether writing works.
const ASIDE_BYTES: u64 = 3 << 19;
const MIN_SEGMENT_BYTES: u64 = 1 << 20;
const MAX_SEGMENT_BYTES: u64 = 1 << 31;
const SEGMENTS: u64 = 64;

/// How much a store may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// What all files in the folder take together.
    pub max_bytes: u64,
    /// Entries, for the index in memory takes 24 to 48 bytes for each.
    pub max_entries: u64,
}

impl Bounds {
    /// What a segment takes at most.
    pub(super) fn segment_bytes(self) -> u64 {
        (self.max_bytes / SEGMENTS).clamp(MIN_SEGMENT_BYTES, MAX_SEGMENT_BYTES)
    }
}

/// How a store is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Entries that can be found; some may be past their time, or purged.
    pub entries: u64,
    /// What all files take together.
    pub bytes: u64,
    /// Entries let go to make room since it was opened.
    pub evicted: u64,
}

/// Entries on disk.
pub struct DiskStore {
    folder: Folder,
    bounds: Bounds,
    index: Index,
    segments: Segments,
    appender: Mutex<Appender>,
    /// Held while the file of purges is written, so that an older state never replaces a newer one.
    purging: Mutex<()>,
    purges_bytes: AtomicU64,
    evicted: AtomicU64,
    closed: AtomicBool,
}

impl DiskStore {
    /// Opens the store in a folder, which it makes if need be, and keeps every other process out of it.
    pub fn open(path: &Path, max_bytes: u64) -> Result<Self, OpenError> {
        Self::open_within(path, Bounds { max_bytes, max_entries: u64::MAX })
    }

    /// The same with a bound on the number of entries.
    pub fn open_within(path: &Path, bounds: Bounds) -> Result<Self, OpenError> {
        let folder = Folder::take(path)?;
        Self::load(folder, bounds).map_err(|fault| OpenError::Unusable { path: path.to_owned(), fault })
    }

    fn load(folder: Folder, bounds: Bounds) -> io::Result<Self> {
        let purges_bytes = Self::load_purges(&folder)?;
        let Opened { index, segments, appender } = opening::read(&folder, bounds)?;
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
        store.change(Appender::make_room)?;
        Ok(store)
    }

    /// Returns the size of the file of purges. A missing or damaged file means that any entry may have been purged, so all
    /// segments are removed. The file is on the medium before the first segment is.
    fn load_purges(folder: &Folder) -> io::Result<u64> {
        let noted = folder::read(&folder.path().join(PURGES))?;
        if let Some(bytes) = noted.as_ref().filter(|bytes| purges::from_bytes(bytes).is_some()) {
            return Ok(bytes.len() as u64);
        }
        let segments = folder.list()?.segments.len();
        if segments > 0 {
            let state = if noted.is_some() { "damaged" } else { "missing" };
            tracing::warn!(segments, "the disk tier drops all entries: its file of purges is {state}");
        }
        folder.remove_segments()?;
        let none = purges::to_bytes(&Noted::default());
        folder.replace(PURGES, &none)?;
        Ok(none.len() as u64)
    }

    /// Fails if the medium has no room for so many bytes.
    pub fn probe(&self, bytes: usize) -> io::Result<()> {
        self.folder.probe(bytes)
    }

    /// Whether something may be there for this key. Does not look at the disk.
    pub fn holds(&self, key: &Key) -> bool {
        self.index.get(Tag::from(key)).is_some()
    }

    /// What is under a key, and until when it is of use. What is past its time by `now_ms`, damaged or of another key
    /// is not there, and forgotten.
    pub fn get(&self, key: &Key, now_ms: u64) -> io::Result<Option<AtRest>> {
        let tag = Tag::from(key);
        let Some(place) = self.index.get(tag) else { return Ok(None) };
        let Some(segment) = self.segment(place.segment) else { return Ok(None) };
        match segment.entry(key, place.offset, place.length)? {
            Some((until_ms, bytes)) if now_ms < until_ms => Ok(Some(AtRest { bytes, until_ms })),
            _ => {
                self.index.remove(tag, place);
                Ok(None)
            }
        }
    }

    /// Keeps an entry.
    pub fn put(&self, key: Key, entry: &AtRest) -> io::Result<()> {
        self.append([(&key, entry)].into_iter())
    }

    /// Keeps entries, with few writes for all of them. The oldest entries go if there is no room. After an error, it
    /// is not certain which of them are kept.
    pub fn append<'e>(&self, entries: impl Iterator<Item = (&'e Key, &'e AtRest)>) -> io::Result<()> {
        self.change(|appender, ground| appender.append(ground, entries))
    }

    /// Hands out all entries that can be found, the oldest first: key, until when it is of use, bytes. Holds nobody up;
    /// what is written meanwhile may be missed. Purged entries are among them: their bytes tell.
    pub fn for_each<E: From<io::Error>>(
        &self,
        mut each: impl FnMut(&Key, u64, Bytes) -> Result<(), E>,
    ) -> Result<(), E> {
        let numbers: Vec<u32> = self.lock_segments().keys().copied().collect();
        for number in numbers {
            let Some(segment) = self.segment(number) else { continue };
            for Lying { tag, offset, length, .. } in self.frames_of(&segment)? {
                let is_newest = || self.index.get(tag) == Some(Place { segment: number, offset, length });
                if is_newest()
                    && let Some((head, bytes)) = segment.frame(offset, length)?
                {
                    each(&head.key, head.until_ms, bytes)?;
                }
            }
        }
        Ok(())
    }

    fn frames_of(&self, segment: &Segment) -> io::Result<Vec<Lying>> {
        let growing = self.lock_appender().growing(segment.number);
        growing.map_or_else(|| Ok(segment.contents()?.frames), Ok)
    }

    /// The purges that were noted here.
    pub fn purges(&self) -> io::Result<Noted> {
        Self::purges_in(self.path())
    }

    /// The purges that were noted in a folder, whoever has it open.
    pub fn purges_in(path: &Path) -> io::Result<Noted> {
        let bytes = folder::read(&path.join(PURGES))?;
        Ok(bytes.and_then(|bytes| purges::from_bytes(&bytes)).unwrap_or_default())
    }

    /// Notes all purges so that not even a power cut undoes it. Returns what is noted now.
    pub fn note_purges(&self, epochs: &Epochs) -> io::Result<Noted> {
        let _one_at_a_time = self.purging.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = epochs.to_note();
        let bytes = purges::to_bytes(&noted);
        self.folder.replace(PURGES, &bytes)?;
        self.purges_bytes.store(bytes.len() as u64, Ordering::Relaxed);
        Ok(noted)
    }

    /// Lets all entries go; says how many those were.
    pub fn clear(&self) -> io::Result<u64> {
        self.change(Appender::clear)
    }

    /// Lets all entries go of a store that need not be readable any more, and hands what is noted in its folder to
    /// `take_over`, whose answer is noted in its place.
    pub fn wipe(path: &Path, take_over: impl FnOnce(&Noted) -> Noted) -> Result<(), OpenError> {
        let folder = Folder::take(path)?;
        let wiped = folder.remove_segments().and_then(|()| {
            let noted = Self::purges_in(path)?;
            let taken_over = take_over(&noted);
            if taken_over == noted { Ok(()) } else { folder.replace(PURGES, &purges::to_bytes(&taken_over)) }
        });
        wiped.map_err(|fault| OpenError::Unusable { path: path.to_owned(), fault })
    }

    /// Seals what was written, waits until it is on the medium, and lets others have the folder. Nothing is written
    /// after that. A store that is dropped without it takes somewhat longer to open.
    pub fn close(&self) -> io::Result<()> {
        let sealed = self.change(|appender, _| appender.seal());
        let _appender = self.lock_appender();
        self.closed.store(true, Ordering::SeqCst);
        sealed.and(self.folder.release())
    }

    /// Its size. Does not look at the disk.
    pub fn stats(&self) -> StoreStats {
        let bytes = self.lock_segments().values().map(|segment| segment.bytes()).sum::<u64>();
        let evicted = self.evicted.load(Ordering::Relaxed);
        StoreStats { entries: self.index.len(), bytes: bytes + self.purges_bytes.load(Ordering::Relaxed), evicted }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    fn change<T>(&self, act: impl FnOnce(&mut Appender, &Ground<'_>) -> io::Result<T>) -> io::Result<T> {
        let mut appender = self.lock_appender();
        if self.closed.load(Ordering::SeqCst) {
            return Err(io::Error::other("the store is closed"));
        }
        // While the file of purges is replaced, it is there twice.
        let aside_bytes = ASIDE_BYTES + 2 * self.purges_bytes.load(Ordering::Relaxed);
        let Self { folder, bounds, index, segments, .. } = self;
        let done = act(&mut appender, &Ground { folder, segments, index, bounds: *bounds, aside_bytes });
        self.evicted.store(appender.evicted(), Ordering::Relaxed);
        done
    }

    fn segment(&self, number: u32) -> Option<Arc<Segment>> {
        self.lock_segments().get(&number).cloned()
    }

    fn lock_segments(&self) -> std::sync::RwLockReadGuard<'_, std::collections::BTreeMap<u32, Arc<Segment>>> {
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
