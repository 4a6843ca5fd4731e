//! Export of the tiers as a file, which is written while it is read.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::cache::Stack;
use crate::cache::export::ExportWriter;
use crate::key::Key;
use crate::process::errors::BoxError;

/// Size of a piece of an exported file in bytes.
const PIECE_BYTES: usize = 64 * 1024;
/// Pieces that are prepared before the reader needs them.
const AHEAD_PIECES: usize = 4;

/// Stream of the bytes of a file.
pub type Pieces<'a> = Pin<Box<dyn Stream<Item = Result<Bytes, BoxError>> + Send + 'a>>;

/// Exports all stored records that have not expired.
pub async fn export(tiers: Arc<Stack>, now_ms: u64) -> Pieces<'static> {
    // Records that wait in a lower tier's queue may already have left memory, so the queues are flushed first.
    tiers.written().await;
    file_of(move |file| tiers.each_at_rest(now_ms, &mut |key, record| file.add(key, record)))
}

/// Creates a file to which `write` adds records. The file is written while it is read, and the writer stops if the
/// reader stops. The file gets an end marker only if `write` completes.
pub fn file_of(write: impl FnOnce(&mut ExportFile) -> ControlFlow<()> + Send + 'static) -> Pieces<'static> {
    let (pieces, written) = mpsc::channel(AHEAD_PIECES);
    // The tiers are read on a blocking thread, because the disk tier reads files.
    let writing = spawn_blocking(move || {
        let mut file = ExportFile::begin(pieces);
        if write(&mut file).is_continue() {
            file.end();
        }
    });
    Box::pin(stream::unfold((written, Some(writing)), next_piece))
}

type Written = (mpsc::Receiver<Bytes>, Option<JoinHandle<()>>);

/// Returns the next piece. A panic of the writer becomes an error, so a truncated file does not look complete.
async fn next_piece((mut written, mut writing): Written) -> Option<(Result<Bytes, BoxError>, Written)> {
    if let Some(piece) = written.recv().await {
        return Some((Ok(piece), (written, writing)));
    }
    // The handle is taken, so the stream ends after it has returned the error.
    match writing.take()?.await {
        Ok(()) => None,
        Err(error) => Some((Err(error.into()), (written, None))),
    }
}

/// Exported file that is being written.
pub struct ExportFile {
    file: ExportWriter,
    piece: Vec<u8>,
    pieces: mpsc::Sender<Bytes>,
}

impl ExportFile {
    fn begin(pieces: mpsc::Sender<Bytes>) -> Self {
        let mut piece = Vec::with_capacity(2 * PIECE_BYTES);
        Self { file: ExportWriter::begin(&mut piece), piece, pieces }
    }

    /// Adds a record and waits for space in the channel. Breaks if the reader is gone.
    pub fn add(&mut self, key: &Key, record: &[u8]) -> ControlFlow<()> {
        // One record that is too long does not end the export.
        if let Err(error) = self.file.record(key, record, &mut self.piece) {
            tracing::warn!(%key, %error, "record skipped in export");
        }
        if self.piece.len() < PIECE_BYTES {
            return ControlFlow::Continue(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(2 * PIECE_BYTES));
        match self.pieces.blocking_send(piece.into()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }

    fn end(mut self) {
        let records = self.file.end(&mut self.piece);
        if self.pieces.blocking_send(self.piece.into()).is_ok() {
            tracing::info!(records, "cache exported");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::StreamExt;

    use super::*;
    use crate::cache::at_rest::ChecksumKeys;
    use crate::cache::bounded::MapBounds;
    use crate::cache::disk::{self, DiskParts, DiskSettings, DiskTier};
    use crate::cache::export::{Ending, ExportReader, NotPortable};
    use crate::cache::{LowerTier, MemoryTier, Record, Times};
    use crate::key::KeyBuilder;
    use crate::learned::ModelIdentity;
    use crate::observe::metrics::Metrics;
    use crate::process::clock::Clock;
    use crate::vector::Vector;

    /// Returns the ending of a file whose writer returns `end` after one record.
    async fn ending(end: ControlFlow<()>) -> Result<Ending, NotPortable> {
        let key = KeyBuilder::new(None).finish();
        let mut pieces = file_of(move |file| {
            assert!(file.add(&key, &vec![1; PIECE_BYTES]).is_continue());
            end
        });
        let mut reader = ExportReader::default();
        while let Some(piece) = pieces.next().await {
            reader.feed(&piece.expect("the writer does not panic"));
            while reader.next_item()?.is_some() {}
        }
        reader.fed();
        while reader.next_item()?.is_some() {}
        assert_eq!(reader.records(), 1);
        Ok(reader.ending())
    }

    #[tokio::test]
    async fn an_export_that_was_interrupted_has_no_end_record() {
        assert_eq!(ending(ControlFlow::Continue(())).await, Ok(Ending::Whole));
        assert_eq!(ending(ControlFlow::Break(())).await, Ok(Ending::Cut));
    }

    /// With one thread for work that blocks, an export that does not wait comes before what waits to be written.
    #[test]
    fn an_export_includes_queued_writes() {
        let path = std::env::temp_dir().join(format!("vecho-export-{}", std::process::id()));
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().max_blocking_threads(1).build().expect("it can be built");
        let records = runtime.block_on(async {
            let bounds = disk::DiskBounds { max_bytes: 16 << 20, max_entries: u64::MAX };
            let (queue_bytes, off_for) = (1 << 20, Duration::from_secs(1));
            let settings = DiskSettings { path: path.clone(), bounds, queue_bytes, off_for };
            let parts = DiskParts { clock: Clock::manual(0), metrics: Metrics::new("test"), purges: Arc::default() };
            let memory = MemoryTier::new(MapBounds { max_bytes: 1 << 20, max_entries: None });
            let disk: Arc<dyn LowerTier> = Arc::new(DiskTier::start(settings, parts).await);
            let stack = Stack::new(memory, vec![disk], Arc::default(), ChecksumKeys::default());
            let vector = Vector::from_components(&[1.0]).expect("it is a vector");
            let times = Times { created_ms: 0, fresh_until_ms: 100, stale_until_ms: 200 };
            let identity = ModelIdentity { model: "m".into(), dimension: 1, revision: 0 };
            let record = Arc::new(Record::new(vector, identity, times, None));
            stack.keep_below(KeyBuilder::new(None).finish(), &record, stack.generation());
            let (mut reader, mut file) = (ExportReader::default(), export(Arc::new(stack), 1).await);
            while let Some(piece) = file.next().await {
                reader.feed(&piece.expect("the writer does not panic"));
                while reader.next_item().expect("it is an export").is_some() {}
            }
            reader.records()
        });
        std::fs::remove_dir_all(&path).ok();
        assert_eq!(records, 1);
    }
}
