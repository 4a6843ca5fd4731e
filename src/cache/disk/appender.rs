//! Write side of the store: one writer appends to one segment at a time and removes the oldest segments to make room.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use super::bounds::DiskBounds;
use super::folder::StoreFolder;
use super::footer::{FrameEntry, KeyTag, footer_bytes};
use super::frame::Head;
use super::index::{FrameLocation, Index};
use super::segment::{Contents, START_BYTES, Segment};
use crate::cache::AtRest;
use crate::key::Key;

/// Segments by number, the oldest first.
pub(super) type Segments = RwLock<BTreeMap<u32, Arc<Segment>>>;

/// Parts of the store that an append works on.
pub(super) struct AppendContext<'a> {
    pub(super) folder: &'a StoreFolder,
    pub(super) segments: &'a Segments,
    pub(super) index: &'a Index,
    pub(super) bounds: DiskBounds,
    /// Bytes taken by files other than segments.
    pub(super) aside_bytes: u64,
}

/// The segment that entries are appended to.
#[derive(Debug)]
struct Active {
    segment: Arc<Segment>,
    frames: Vec<FrameEntry>,
    data_end: u64,
    /// True if bytes may follow the frames that must be cut off before the next write.
    must_cut: bool,
    sealed: bool,
}

/// Frames that are written in one call.
#[derive(Debug, Default)]
struct Run {
    bytes: Vec<u8>,
    frames: Vec<FrameEntry>,
}

/// Largest buffer that is kept for the next append. It fits the batches of the tier.
const MAX_KEPT_BYTES: usize = 1 << 20;

/// Appends entries to segments. Each store has one.
#[derive(Debug)]
pub(super) struct Appender {
    active: Option<Active>,
    /// Number of the next segment; `None` once all numbers are used.
    next: Option<u32>,
    evicted: u64,
    /// Empty between appends. Its buffer is used again, since new memory for each batch would cost as much as the copy.
    run: Run,
}

impl Appender {
    /// Continues after segment `last`. `growing` holds that segment and its contents if it still has room.
    pub(super) fn new(last: u32, growing: Option<(Arc<Segment>, Contents)>) -> Self {
        let active = growing.map(|(segment, Contents { frames, data_end, sealed })| {
            segment.grown_to(data_end, frames.len());
            // A footer stays until the next write, so a process that writes nothing leaves the segment sealed.
            Active { segment, frames, data_end, must_cut: true, sealed }
        });
        Self { active, next: last.checked_add(1), evicted: 0, run: Run::default() }
    }

    /// Makes `segment` the growing segment.
    #[cfg(test)]
    pub(super) fn go_on_in(&mut self, segment: Arc<Segment>) {
        let (frames, data_end) = (Vec::new(), START_BYTES);
        self.active = Some(Active { segment, frames, data_end, must_cut: false, sealed: false });
    }

    /// Returns the number of entries evicted to make room.
    pub(super) const fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Returns the frames of segment `number` if it is the growing one.
    pub(super) fn growing(&self, number: u32) -> Option<Vec<FrameEntry>> {
        self.active.as_ref().filter(|active| active.segment.number == number).map(|active| active.frames.clone())
    }

    /// Appends entries with one write per segment. Entries larger than a segment are skipped.
    pub(super) fn append<'e>(
        &mut self,
        context: &AppendContext<'_>,
        entries: impl Iterator<Item = (&'e Key, &'e AtRest)>,
    ) -> io::Result<()> {
        self.run.clear();
        for (key, entry) in entries {
            let Ok(length) = u32::try_from(entry.bytes.len()) else { continue };
            let head = Head { key: *key, until_ms: entry.until_ms, length };
            if START_BYTES + head.frame_bytes() + footer_bytes(1) > context.bounds.segment_bytes() {
                continue;
            }
            // The gathered frames belong to the present segment, so they are written before it is sealed.
            if !self.has_room(&head, context.bounds) {
                self.write(context.index)?;
                self.rotate(context)?;
            }
            let data_end = self.data_end();
            self.run.push(&head, &entry.bytes, data_end);
        }
        self.write(context.index)
    }

    fn has_room(&self, head: &Head, bounds: DiskBounds) -> bool {
        self.active.as_ref().is_some_and(|active| {
            // The footer counts too, so a sealed segment is within the limit.
            let data_end = active.data_end + self.run.bytes.len() as u64 + head.frame_bytes();
            data_end + footer_bytes(active.frames.len() + self.run.frames.len() + 1) <= bounds.segment_bytes()
        })
    }

    fn data_end(&self) -> u64 {
        self.active.as_ref().map_or(START_BYTES, |active| active.data_end)
    }

    /// Writes the gathered frames. They are gone afterwards, also if the write failed.
    fn write(&mut self, index: &Index) -> io::Result<()> {
        let mut run = std::mem::take(&mut self.run);
        let written = self.active.as_mut().filter(|_| !run.frames.is_empty()).map(|active| active.write(&run, index));
        // The buffer of an unusually large batch is freed.
        if run.bytes.capacity() <= MAX_KEPT_BYTES {
            run.clear();
            self.run = run;
        }
        written.unwrap_or(Ok(()))
    }

    fn rotate(&mut self, context: &AppendContext<'_>) -> io::Result<()> {
        // Once it is sealed, the segment is one of the full ones, which may be evicted to make room.
        self.seal()?;
        self.active = None;
        self.make_room(context)?;
        let number = self.free_number(context)?;
        let segment = Arc::new(Segment::create(&context.folder.segment(number), number)?);
        self.next = number.checked_add(1);
        // The segment is known before any frame in it enters the index, so readers always find it.
        write(context.segments).insert(number, Arc::clone(&segment));
        self.active =
            Some(Active { segment, frames: Vec::new(), data_end: START_BYTES, must_cut: false, sealed: false });
        Ok(())
    }

    /// Returns the number of the next segment. A lower number must mean an older segment. If all numbers are used,
    /// which takes a file with a number near the maximum, this function removes all entries and begins again at the
    /// first number.
    fn free_number(&mut self, context: &AppendContext<'_>) -> io::Result<u32> {
        // A folder or link may already have that name.
        let free = |from| (from..=u32::MAX).find(|number| !context.folder.is_taken(*number));
        if let Some(number) = self.next.and_then(free) {
            return Ok(number);
        }
        self.evicted += self.clear(context)?;
        free(1).ok_or_else(|| io::Error::other("no name is left for a segment"))
    }

    /// Evicts the oldest segments until the growing segment, or a new one, can reach the full segment size and the
    /// number of entries is below the limit.
    pub(super) fn make_room(&mut self, context: &AppendContext<'_>) -> io::Result<()> {
        let growing = self.active.as_ref().map(|active| &active.segment);
        // The growing segment counts at full size, so its growth never exceeds the bound.
        let grown_bytes = growing.map_or(0, |segment| segment.bytes()).max(context.bounds.segment_bytes());
        let growing = growing.map(|segment| segment.number);
        loop {
            let full = full_segments(context.segments, growing);
            let taken = full.iter().map(|segment| segment.bytes()).sum::<u64>() + grown_bytes + context.aside_bytes;
            let fits = taken <= context.bounds.max_bytes && context.index.len() < context.bounds.max_entries;
            let Some(oldest) = full.first().filter(|_| !fits) else { return Ok(()) };
            // Index, then table, then file: a reader with an old location finds no segment (a miss), or still has the
            // file open.
            self.evicted += context.index.remove_segment(oldest.number);
            write(context.segments).remove(&oldest.number);
            context.folder.remove_segment(oldest.number)?;
        }
    }

    /// Writes the footer of the growing segment and waits until it is synced to disk.
    pub(super) fn seal(&mut self) -> io::Result<()> {
        let Some(active) = self.active.as_mut().filter(|active| !active.sealed) else { return Ok(()) };
        // Readers expect the footer at the end of the file, where damaged bytes may follow the frames.
        active.segment.cut(active.data_end)?;
        active.segment.seal(&active.frames, active.data_end)?;
        (active.sealed, active.must_cut) = (true, true);
        Ok(())
    }

    /// Removes all entries and returns how many there were.
    pub(super) fn clear(&mut self, context: &AppendContext<'_>) -> io::Result<u64> {
        // The next append begins a new segment, even if a file cannot be removed now.
        self.active = None;
        let gone = context.index.clear();
        write(context.segments).clear();
        context.folder.remove_segments()?;
        Ok(gone)
    }
}

impl Active {
    fn write(&mut self, run: &Run, index: &Index) -> io::Result<()> {
        // Without the cut, frames behind a damaged one could return once new frames reach up to them.
        if std::mem::take(&mut self.must_cut) {
            self.segment.cut(self.data_end)?;
        }
        self.sealed = false;
        self.segment.write(&run.bytes, self.data_end)?;
        self.data_end += run.bytes.len() as u64;
        self.frames.extend(&run.frames);
        self.segment.grown_to(self.data_end, self.frames.len());
        // The index changes after the write, so readers never look for bytes that are not there yet.
        for &FrameEntry { tag, offset, length, .. } in &run.frames {
            index.insert(tag, FrameLocation { segment: self.segment.number, offset, length });
        }
        Ok(())
    }
}

impl Run {
    fn clear(&mut self) {
        self.bytes.clear();
        self.frames.clear();
    }

    fn push(&mut self, head: &Head, value: &[u8], data_end: u64) {
        let offset = data_end + self.bytes.len() as u64;
        self.frames.push(FrameEntry {
            tag: KeyTag::from(&head.key),
            until_ms: head.until_ms,
            offset: u32::try_from(offset).expect("a segment must be smaller than 4 GiB"),
            length: head.length,
        });
        self.bytes.extend_from_slice(&head.to_bytes());
        self.bytes.extend_from_slice(value);
    }
}

/// Returns all segments but the growing one, the oldest first.
fn full_segments(segments: &Segments, growing: Option<u32>) -> Vec<Arc<Segment>> {
    write(segments).values().filter(|segment| Some(segment.number) != growing).cloned().collect()
}

fn write(segments: &Segments) -> std::sync::RwLockWriteGuard<'_, BTreeMap<u32, Arc<Segment>>> {
    segments.write().unwrap_or_else(PoisonError::into_inner)
}
