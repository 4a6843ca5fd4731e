//! Reader: bytes are fed in as they arrive, and each record is returned as soon as it is complete.

use bytes::{Buf, Bytes, BytesMut};

use super::format::{
    ANY_HEAD, CHECKSUM_BYTES, END_BYTES, END_MARK, FRAME_HEAD_BYTES, HEAD, KEY_BYTES, MARK_BYTES, MAX_RECORD_BYTES,
    RECORD_MARK, add, checksum, empty_sum, end_checksum,
};
use crate::key::Key;

/// Number of damaged places after which reading stops. Each costs the hash of at most one frame, even in a file that
/// was crafted to cost as much as possible.
const MAX_DAMAGED: u64 = 1_000;

/// Reads one file. Holds no more than one frame and the bytes that were fed last.
#[derive(Debug)]
pub struct ExportReader {
    pub(super) pending: BytesMut,
    state: ReadState,
    /// True if all bytes were fed.
    is_fed: bool,
    /// True if the last frame is incomplete. The file was truncated, unless something intact follows.
    is_short: bool,
    records: u64,
    damaged: u64,
    sum: Key,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadState {
    Head,
    /// A mark is expected next.
    Frames,
    /// Damage was found: the next mark is searched.
    Lost,
    /// Reading has ended.
    Over(Ending),
}

/// One result of reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExportItem {
    /// An intact record under its key.
    Record(Key, Bytes),
    /// A damaged place, which is skipped.
    Damaged,
}

/// Final state of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The whole file is as it was written.
    Whole,
    /// The end is present, but something before it is damaged, missing or duplicate.
    Damaged,
    /// The end is missing.
    Cut,
    /// Too much is damaged, so the rest was not read.
    GivenUp,
}

/// Reason why a file is not an exported cache of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotPortable {
    /// Its first line is different.
    #[error("this is not an exported cache")]
    Other,
    /// Its first line names an unknown version.
    #[error("this cache was exported in a format that this version does not know")]
    Version,
}

/// Content at the start of the pending bytes.
enum FrameKind {
    /// A complete frame with a record of this length.
    Record(usize),
    End,
    /// Too few bytes to decide.
    Short,
    /// Neither a frame nor the end.
    Wrong,
}

/// Result of one parsing step.
enum ParseResult {
    /// Parse again.
    GoOn,
    /// Wait for more bytes.
    Wait,
    Out(ExportItem),
}

impl Default for ExportReader {
    fn default() -> Self {
        Self {
            pending: BytesMut::new(),
            state: ReadState::Head,
            is_fed: false,
            is_short: false,
            records: 0,
            damaged: 0,
            sum: empty_sum(),
        }
    }
}

impl ExportReader {
    /// Takes the next bytes of the file. Before that, [`ExportReader::next_item`] must be called until it returns none.
    pub fn feed(&mut self, bytes: &[u8]) {
        match &mut self.state {
            // Bytes after the end do not belong to the file.
            ReadState::Over(ending) if *ending == Ending::Whole && !bytes.is_empty() => *ending = Ending::Damaged,
            ReadState::Over(_) => {}
            _ => self.pending.extend_from_slice(bytes),
        }
    }

    /// Notes that the file has no more bytes. The remaining pieces must still be read.
    pub const fn fed(&mut self) {
        self.is_fed = true;
    }

    /// Returns the next piece, if one is complete.
    pub fn next_item(&mut self) -> Result<Option<ExportItem>, NotPortable> {
        loop {
            let result = match self.state {
                ReadState::Over(_) => ParseResult::Wait,
                ReadState::Head => self.read_head()?,
                ReadState::Lost => self.find_mark(),
                ReadState::Frames => self.read_frame(),
            };
            match result {
                ParseResult::GoOn => {}
                ParseResult::Wait => return Ok(None),
                ParseResult::Out(piece) => return Ok(Some(piece)),
            }
        }
    }

    /// Reads the content at a mark.
    fn read_frame(&mut self) -> ParseResult {
        match self.frame_kind() {
            FrameKind::Short if !self.is_fed => ParseResult::Wait,
            FrameKind::Short => self.read_short(),
            FrameKind::Wrong => self.read_damage(),
            FrameKind::Record(length) => self.read_record(length),
            FrameKind::End => self.read_end(),
        }
    }

    /// Returns the final state of the file once no piece is left. Until then it returns [`Ending::Cut`].
    pub const fn ending(&self) -> Ending {
        match self.state {
            ReadState::Over(ending) => ending,
            ReadState::Head | ReadState::Frames | ReadState::Lost => Ending::Cut,
        }
    }

    /// Returns the number of intact records.
    pub const fn records(&self) -> u64 {
        self.records
    }

    /// Returns the number of damaged places.
    pub const fn damaged(&self) -> u64 {
        self.damaged
    }

    fn read_head(&mut self) -> Result<ParseResult, NotPortable> {
        let begins = |with: &[u8]| {
            let shared = self.pending.len().min(with.len());
            self.pending[..shared] == with[..shared]
        };
        // Only the bytes that have arrived are compared, so a foreign file is refused at once.
        if !begins(HEAD) {
            return Err(if begins(ANY_HEAD) { NotPortable::Version } else { NotPortable::Other });
        }
        if self.pending.len() < HEAD.len() {
            return if self.is_fed { Err(NotPortable::Other) } else { Ok(ParseResult::Wait) };
        }
        self.pending.advance(HEAD.len());
        self.state = ReadState::Frames;
        Ok(ParseResult::GoOn)
    }

    fn frame_kind(&self) -> FrameKind {
        let pending = &self.pending[..];
        let Some(mark) = pending.first_chunk::<MARK_BYTES>() else { return FrameKind::Short };
        if *mark == END_MARK {
            return if pending.len() < END_BYTES { FrameKind::Short } else { FrameKind::End };
        }
        if *mark != RECORD_MARK {
            return FrameKind::Wrong;
        }
        let Some(length) = pending[MARK_BYTES..].first_chunk::<4>() else { return FrameKind::Short };
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        // A damaged length must not make the reader wait for up to 4 GiB.
        if length == 0 || length > MAX_RECORD_BYTES {
            FrameKind::Wrong
        } else if pending.len() < FRAME_HEAD_BYTES + length + CHECKSUM_BYTES {
            FrameKind::Short
        } else {
            FrameKind::Record(length)
        }
    }

    fn read_record(&mut self, length: usize) -> ParseResult {
        let key = key_at(&self.pending, FRAME_HEAD_BYTES - KEY_BYTES);
        let checksum = checksum(&key, &self.pending[FRAME_HEAD_BYTES..FRAME_HEAD_BYTES + length]);
        if key_at(&self.pending, FRAME_HEAD_BYTES + length) != checksum {
            return self.read_damage();
        }
        self.note_short();
        self.sum = add(&self.sum, &checksum);
        self.records += 1;
        self.pending.advance(FRAME_HEAD_BYTES);
        let record = self.pending.split_to(length).freeze();
        self.pending.advance(CHECKSUM_BYTES);
        ParseResult::Out(ExportItem::Record(key, record))
    }

    fn read_end(&mut self) -> ParseResult {
        let count = self.pending[MARK_BYTES..].first_chunk::<8>().map_or(0, |count| u64::from_le_bytes(*count));
        let sum = key_at(&self.pending, MARK_BYTES + 8);
        if key_at(&self.pending, END_BYTES - CHECKSUM_BYTES) != end_checksum(count, &sum) {
            return self.read_damage();
        }
        self.note_short();
        self.pending.advance(END_BYTES);
        let is_whole = self.damaged == 0 && count == self.records && sum == self.sum && self.pending.is_empty();
        self.end(if is_whole { Ending::Whole } else { Ending::Damaged });
        ParseResult::Wait
    }

    /// Counts a frame that seemed truncated as damaged, because something intact follows it.
    const fn note_short(&mut self) {
        if self.is_short {
            self.is_short = false;
            self.damaged += 1;
        }
    }

    /// Skips a frame that exceeds the end of the file. Its length may be damaged, so the bytes after its
    /// mark are searched.
    fn read_short(&mut self) -> ParseResult {
        self.is_short = true;
        self.skip_mark();
        ParseResult::GoOn
    }

    fn read_damage(&mut self) -> ParseResult {
        self.damaged += 1;
        self.skip_mark();
        if self.damaged >= MAX_DAMAGED {
            self.end(Ending::GivenUp);
        }
        ParseResult::Out(ExportItem::Damaged)
    }

    fn skip_mark(&mut self) {
        // Only one byte is skipped, because the next mark may be inside the damaged frame.
        self.pending.advance(self.pending.len().min(1));
        self.state = ReadState::Lost;
    }

    /// Skips to the next mark.
    fn find_mark(&mut self) -> ParseResult {
        let is_mark = |bytes: &[u8]| *bytes == RECORD_MARK || *bytes == END_MARK;
        if let Some(at) = self.pending.windows(MARK_BYTES).position(is_mark) {
            self.pending.advance(at);
            self.state = ReadState::Frames;
            return ParseResult::GoOn;
        }
        // A mark may begin in the last bytes.
        let kept = self.pending.len().min(MARK_BYTES - 1);
        self.pending.advance(self.pending.len() - kept);
        if self.is_fed {
            self.end(Ending::Cut);
        }
        ParseResult::Wait
    }

    fn end(&mut self, ending: Ending) {
        self.state = ReadState::Over(ending);
        self.pending = BytesMut::new();
    }
}

/// Returns the 32 bytes at a place, which must exist.
fn key_at(bytes: &[u8], at: usize) -> Key {
    Key::from_bytes(*bytes[at..].first_chunk().expect("a frame must have been seen to be whole"))
}
