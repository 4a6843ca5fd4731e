//! Import of an exported file into the tiers.

use bytes::Bytes;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};

use super::Pieces;
use crate::cache::export::{Ending, ExportItem, ExportReader, NotPortable};
use crate::cache::purges::JobStart;
use crate::cache::{Arrivals, ImportOutcome, Stack};
use crate::key::Key;
use crate::process::clock::Clock;
use crate::vector::packed::Codec;

/// Bytes of records that are stored in one batch. It is well below the capacity of a tier's queue.
const BATCH_BYTES: usize = 256 * 1024;

/// Result of an import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Imported {
    /// Records imported.
    pub imported: u64,
    /// Records skipped because the existing one is as new or newer.
    pub known: u64,
    /// Records skipped because they have expired.
    pub expired: u64,
    /// Records skipped because they were purged in the meantime.
    pub purged: u64,
    /// Records skipped because they are less precise than this instance's codec allows.
    pub lossy: u64,
    /// Damaged places in the file, without a complete record.
    pub damaged: u64,
    /// Number of writes that a tier below memory dropped during the import because it was down or slow. A record that
    /// no tier has written exists only in memory.
    pub unwritten: u64,
    /// True if the file was complete and undamaged.
    pub whole: bool,
}

impl Imported {
    fn count(&mut self, outcome: ImportOutcome) {
        *match outcome {
            ImportOutcome::Kept => &mut self.imported,
            ImportOutcome::Known => &mut self.known,
            ImportOutcome::Over => &mut self.expired,
            ImportOutcome::Purged => &mut self.purged,
            ImportOutcome::Lossy => &mut self.lossy,
            ImportOutcome::Damaged => &mut self.damaged,
        } += 1;
    }
}

/// Rules of an import.
#[derive(Clone, Copy, Debug)]
pub struct ImportRules {
    /// Codec of this instance.
    pub codec: Codec,
    /// Start of the job that made the records; `None` if they are those of another cache.
    pub job: Option<JobStart>,
}

/// Imports a file piece by piece. A stream that fails counts as a truncated file.
pub async fn import(
    tiers: &Stack,
    clock: &Clock,
    rules: ImportRules,
    mut file: Pieces<'_>,
) -> Result<Imported, NotPortable> {
    let (arrivals, batch) = (tiers.arrivals(rules.codec, rules.job), Vec::new());
    let imported = Imported::default();
    let dropped_before = dropped(tiers);
    let mut import = Import { tiers, clock, arrivals, batch, batch_bytes: 0, imported };
    let mut reader = ExportReader::default();
    while let Some(Ok(piece)) = file.next().await {
        reader.feed(&piece);
        import.read(&mut reader).await?;
    }
    // At the end of the file, the reader searches the bytes of an incomplete frame for intact records.
    reader.fed();
    import.read(&mut reader).await?;
    import.keep_batch().await;
    let Imported { imported, known, expired, purged, damaged, .. } = import.imported;
    // A record may be damaged in an intact frame, for example if it belongs to another key.
    let whole = reader.ending() == Ending::Whole && damaged == 0;
    let unwritten = dropped(tiers).saturating_sub(dropped_before);
    tracing::info!(imported, known, expired, purged, damaged, unwritten, whole, "cache imported");
    Ok(Imported { unwritten, whole, ..import.imported })
}

/// Returns the entries that lower tiers have dropped, regardless of their source.
fn dropped(tiers: &Stack) -> u64 {
    tiers.lower().iter().map(|tier| tier.stats().dropped).sum()
}

/// State of a running import.
struct Import<'a> {
    tiers: &'a Stack,
    clock: &'a Clock,
    arrivals: Arrivals,
    batch: Vec<(Key, Bytes)>,
    batch_bytes: usize,
    imported: Imported,
}

impl Import<'_> {
    async fn read(&mut self, reader: &mut ExportReader) -> Result<(), NotPortable> {
        while let Some(piece) = reader.next_item()? {
            match piece {
                ExportItem::Record(key, record) => {
                    // The size of a pair counts too, so tiny records cannot make the batch long.
                    self.batch_bytes += record.len() + size_of::<(Key, Bytes)>();
                    self.batch.push((key, record));
                }
                ExportItem::Damaged => self.imported.damaged += 1,
            }
            if self.batch_bytes >= BATCH_BYTES {
                self.keep_batch().await;
            }
        }
        Ok(())
    }

    async fn keep_batch(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let outcomes = self.tiers.keep_arrived(&batch, &mut self.arrivals, self.clock.now_ms()).await;
        for outcome in outcomes {
            self.imported.count(outcome);
        }
    }
}
