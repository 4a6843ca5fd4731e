//! Writing behind: what waits goes out in batches, and what cannot be written is counted.

use std::sync::Arc;
use std::time::Duration;

use super::holds::Holds;
use super::keeper::Keeper;
use super::link::Link;
use super::trouble::Trouble;
use crate::clock::Clock;
use crate::key::Key;
use crate::tiers::{Batch, WriteQueue};

/// Bytes of one batch: large enough to be worth a round trip, small enough to be through at once.
const BATCH_BYTES: usize = 256 << 10;
/// A batch may take longer than a question: nobody waits for it.
const WRITE_WITHIN: Duration = Duration::from_secs(1);
/// Tries of one batch, each over a way that was up when it began.
const TRIES: usize = 2;
/// Redis counts in signed milliseconds since 1970; nothing is kept for longer than ten years.
const LONGEST_MS: u64 = 10 * 365 * 24 * 3600 * 1000;

/// See above.
pub(super) struct Writer {
    pub(super) keeper: Arc<Keeper>,
    pub(super) queue: Arc<WriteQueue>,
    pub(super) holds: Arc<Holds>,
    pub(super) clock: Clock,
}

impl Writer {
    /// Goes on until it is stopped.
    pub(super) async fn run(self) {
        loop {
            let batch = self.queue.next(BATCH_BYTES).await;
            match self.write(&batch).await {
                Ok(unwritten) => {
                    self.queue.lose(unwritten);
                    self.queue.done(&batch);
                }
                Err(()) => self.queue.give_up(&batch),
            }
            let keys: Vec<Key> = batch.entries.iter().map(|(key, _)| *key).collect();
            self.holds.written(&keys, &self.keeper);
        }
    }

    /// Says how many entries were refused; nothing is written where it fails.
    async fn write(&self, batch: &Batch) -> Result<u64, ()> {
        for _ in 0..TRIES {
            let link = self.keeper.switch.up().await;
            if let Some(unwritten) = self.write_over(&link, batch).await {
                return Ok(unwritten);
            }
        }
        Err(())
    }

    async fn write_over(&self, link: &Arc<Link>, batch: &Batch) -> Option<u64> {
        let (now_ms, era) = (self.clock.now_ms(), self.keeper.ledger.era());
        let entry = |(key, entry): &(Key, crate::tiers::AtRest)| {
            // What left the queue meanwhile was cleared. A clearing empties the queue before it begins the next era, so
            // nothing from before it gets a name from after it.
            self.queue.get(key)?;
            let for_ms = entry.until_ms.saturating_sub(now_ms).min(LONGEST_MS);
            (for_ms > 0).then(|| (self.keeper.names.record(key, era), entry.bytes.clone(), for_ms))
        };
        let entries: Vec<_> = batch.entries.iter().filter_map(entry).collect();
        if entries.is_empty() {
            return Some(0);
        }
        let written = link.write(entries, WRITE_WITHIN.max(self.keeper.config.timeout)).await;
        let switch = &self.keeper.switch;
        match &written.trouble {
            None => {
                switch.answered();
                switch.takes_writes(None);
            }
            Some(refused @ Trouble::Refused(_)) => switch.takes_writes(Some(refused)),
            Some(trouble) => {
                switch.failed(link, trouble);
                return None;
            }
        }
        Some(written.each.iter().filter(|written| written.is_none()).count() as u64)
    }
}
