//! Builds the index from the segments in a folder.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::appender::Appender;
use super::bounds::DiskBounds;
use super::folder::{Listing, StoreFolder};
use super::footer::footer_bytes;
use super::index::{FrameLocation, Index};
use super::segment::{Contents, Segment};

/// Contents of a folder.
pub(super) struct FolderContents {
    pub(super) index: Index,
    pub(super) segments: BTreeMap<u32, Arc<Segment>>,
    pub(super) appender: Appender,
}

/// Reads all segments, the oldest first, so the index points to the latest entry of each key. Segment files of
/// another version are removed.
pub(super) fn read(folder: &StoreFolder, bounds: DiskBounds) -> io::Result<FolderContents> {
    let mut found = Vec::new();
    let Listing { segments, others } = folder.list()?;
    if let Some(first) = others.first() {
        let first = folder.segment(*first);
        let (skipped, first) = (others.len(), first.display());
        tracing::warn!(skipped, %first, "ignoring entries in the disk folder that are not regular files");
    }
    for number in segments {
        match Segment::open(&folder.segment(number), number)? {
            Some(segment) => found.push((segment.contents()?, Arc::new(segment))),
            None => folder.remove_segment(number)?,
        }
    }
    let index = Index::with_room(found.iter().map(|(contents, _)| contents.frames.len()).sum());
    // Later inserts replace earlier ones, so each tag points to its latest frame.
    for (contents, segment) in &found {
        for frame in &contents.frames {
            let location = FrameLocation { segment: segment.number, offset: frame.offset, length: frame.length };
            index.insert(frame.tag, location);
        }
    }
    let segments = found.iter().map(|(_, segment)| (segment.number, Arc::clone(segment))).collect();
    let last = found.pop();
    // A crash may have left an incomplete frame. Only the last segment is appended to, so only it is cut.
    if let Some((Contents { data_end, sealed: false, .. }, segment)) = &last {
        segment.cut(*data_end)?;
    }
    let number = last.as_ref().map_or(0, |(_, segment)| segment.number);
    let growing =
        last.filter(|(contents, _)| has_room(contents, bounds)).map(|(contents, segment)| (segment, contents));
    Ok(FolderContents { index, segments, appender: Appender::new(number, growing) })
}

/// Returns true if entries can be appended. A segment without a footer always qualifies, because it still needs one.
fn has_room(contents: &Contents, bounds: DiskBounds) -> bool {
    !contents.sealed || contents.data_end + footer_bytes(contents.frames.len()) < bounds.segment_bytes()
}
