//! One file of the store: a sixteen-byte header, frames, and a footer once it is sealed.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::folder::writable;
use super::footer::{self, END_BYTES, FrameEntry, KeyTag, footer_bytes};
use super::frame::{HEAD_BYTES, Head};
use crate::key::Key;

/// Header of a segment. Any change of a layout must change the number in it.
const START: [u8; 16] = *b"vecho segment 1\n";
pub(super) const START_BYTES: u64 = START.len() as u64;

/// File systems round file sizes up to blocks of this size.
const BLOCK_BYTES: u64 = 4096;

/// One segment file.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u32,
    file: File,
    /// Bytes taken on disk.
    bytes: AtomicU64,
}

/// Contents of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contents {
    /// Frames in the order they were written.
    pub(super) frames: Vec<FrameEntry>,
    /// End of the frames. A footer or damaged bytes follow.
    pub(super) data_end: u64,
    pub(super) sealed: bool,
}

impl Segment {
    pub(super) fn create(path: &Path, number: u32) -> io::Result<Self> {
        // `create_new` fails on any existing entry, so a link is never followed to a file elsewhere.
        let file = writable().create_new(true).open(path)?;
        file.write_all_at(&START, 0)?;
        Ok(Self { number, file, bytes: AtomicU64::new(BLOCK_BYTES) })
    }

    /// Opens an existing segment; `None` if the file is not a segment of this version.
    pub(super) fn open(path: &Path, number: u32) -> io::Result<Option<Self>> {
        let file = writable().open(path)?;
        let bytes = AtomicU64::new(file.metadata()?.len().next_multiple_of(BLOCK_BYTES));
        let segment = Self { number, file, bytes };
        Ok((segment.read(0, START.len())?.as_deref() == Some(&START)).then_some(segment))
    }

    /// Wraps any file, so tests can check how errors are handled.
    #[cfg(test)]
    pub(super) const fn over(file: File) -> Self {
        Self { number: u32::MAX, file, bytes: AtomicU64::new(0) }
    }

    /// Returns the bytes taken on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Returns the frames, read from the footer, or by a scan up to the first damaged frame if there is no valid
    /// footer.
    pub(super) fn contents(&self) -> io::Result<Contents> {
        let file_bytes = self.file.metadata()?.len();
        match self.footer(file_bytes)? {
            Some(sealed) => Ok(sealed),
            None => self.scan(file_bytes),
        }
    }

    fn footer(&self, file_bytes: u64) -> io::Result<Option<Contents>> {
        let Some(end_at) = file_bytes.checked_sub(END_BYTES) else { return Ok(None) };
        let end = self.read(end_at, length_of(END_BYTES))?.unwrap_or_default();
        // The sizes must add up before the whole footer is read.
        let Some(data_end) = footer::data_end(&end, file_bytes) else { return Ok(None) };
        let bytes = self.read(data_end, length_of(file_bytes - data_end))?.unwrap_or_default();
        let frames = footer::read(&bytes, self.number);
        Ok(frames.map(|frames| Contents { frames, data_end, sealed: true }))
    }

    fn scan(&self, file_bytes: u64) -> io::Result<Contents> {
        let (mut frames, mut at) = (Vec::new(), START_BYTES);
        // Only heads are read: each value has its own checksum, which is verified when it is served.
        while let Some(head) = self.read(at, HEAD_BYTES)?.as_deref().and_then(Head::read) {
            let next = at + head.frame_bytes();
            let Ok(offset) = u32::try_from(at) else { break };
            // A crash during a write leaves an incomplete last frame.
            if next > file_bytes {
                break;
            }
            frames.push(FrameEntry {
                tag: KeyTag::from(&head.key),
                until_ms: head.until_ms,
                offset,
                length: head.length,
            });
            at = next;
        }
        Ok(Contents { frames, data_end: at, sealed: false })
    }

    /// Reads the frame at `offset`, if its header is intact and its value has `length` bytes.
    pub(super) fn frame(&self, offset: u32, length: u32) -> io::Result<Option<(Head, Bytes)>> {
        let frame_bytes = HEAD_BYTES as u64 + u64::from(length);
        let Some(bytes) = self.read(offset.into(), length_of(frame_bytes))? else { return Ok(None) };
        let head = Head::read(&bytes).filter(|head| head.length == length);
        Ok(head.map(|head| (head, Bytes::from(bytes).slice(HEAD_BYTES..))))
    }

    /// Reads `length` bytes at `offset`; `None` if the file ends before.
    fn read(&self, offset: u64, length: usize) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; length];
        // A positioned read moves no cursor, so concurrent readers share the file without a lock.
        match self.file.read_exact_at(&mut bytes, offset) {
            Ok(()) => Ok(Some(bytes)),
            Err(fault) if fault.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Overwrites the value of the frame at `offset` with zeros, if the frame belongs to one of `keys`. Returns true if
    /// it did.
    pub(super) fn erase(&self, offset: u32, keys: &HashSet<Key>) -> io::Result<bool> {
        let head = self.read(offset.into(), HEAD_BYTES)?.as_deref().and_then(Head::read);
        let Some(head) = head.filter(|head| keys.contains(&head.key) && !head.is_erased()) else { return Ok(false) };
        let mut frame = vec![0; length_of(head.frame_bytes())];
        frame[..HEAD_BYTES].copy_from_slice(&head.erased().to_bytes());
        self.file.write_all_at(&frame, offset.into())?;
        Ok(true)
    }

    /// Waits until all written bytes are on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Truncates the file after its frames.
    pub(super) fn cut(&self, data_end: u64) -> io::Result<()> {
        self.file.set_len(data_end)
    }

    /// Writes at the end of the frames. After a failed write, the partial data is truncated.
    pub(super) fn write(&self, bytes: &[u8], data_end: u64) -> io::Result<()> {
        // If the truncation fails too, the segment is truncated the next time it is opened.
        self.file.write_all_at(bytes, data_end).inspect_err(|_| drop(self.cut(data_end)))
    }

    /// Writes the footer and waits until the segment is synced to disk.
    pub(super) fn seal(&self, frames: &[FrameEntry], data_end: u64) -> io::Result<()> {
        self.write(&footer::to_bytes(frames, self.number, data_end), data_end)?;
        self.file.sync_data()
    }

    /// Updates the size to that of the frames and a footer for them.
    pub(super) fn grown_to(&self, data_end: u64, frames: usize) {
        self.bytes.store((data_end + footer_bytes(frames)).next_multiple_of(BLOCK_BYTES), Ordering::Relaxed);
    }

    /// Returns the expiry time and the value of the frame at this place, if it is intact and belongs to `key`.
    pub(super) fn entry(&self, key: &Key, offset: u32, length: u32) -> io::Result<Option<(u64, Bytes)>> {
        // Keys with the same tag share an entry of the index, so the full key decides.
        let frame = self.frame(offset, length)?.filter(|(head, _)| head.key == *key);
        Ok(frame.map(|(head, value)| (head.until_ms, value)))
    }
}

/// Converts a length that fits, because segments are smaller than 4 GiB.
fn length_of(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
