//! Write-behind: queued entries are written in batches, and entries that cannot be written are counted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::error::LinkError;
use super::holds::Holds;
use super::link::{Link, WRITE_WITHIN};
use super::manager::LinkManager;
use crate::cache::{AtRest, BatchLimits, WriteBatch, WriteQueue};
use crate::key::Key;
use crate::process::clock::Clock;

/// Limits of a batch: large enough to be worth a round trip, small enough to finish quickly. Entries do not wait for
/// further ones, because other replicas wait for them, with leases even until they are written. Under load the next
/// batch gathers while the one before it is on its way.
pub(super) const BATCH: BatchLimits = BatchLimits { full_bytes: 256 << 10, linger: Duration::ZERO };
/// Attempts per batch, each over a link that was up when the attempt began.
const TRIES: usize = 2;
/// Longest TTL: ten years. Redis stores expiry times as signed milliseconds since 1970.
const LONGEST_MS: u64 = 10 * 365 * 24 * 3600 * 1000;

/// Task that writes queued entries.
pub(super) struct RedisWriter {
    pub(super) manager: Arc<LinkManager>,
    pub(super) queue: Arc<WriteQueue>,
    pub(super) holds: Arc<Holds>,
    pub(super) clock: Clock,
}

impl RedisWriter {
    /// Writes batches until the task is stopped.
    pub(super) async fn run(self) {
        loop {
            let batch = self.queue.next().await;
            match self.write(&batch).await {
                Ok(unwritten) => {
                    self.queue.lose(unwritten);
                    self.queue.done(&batch);
                }
                Err(()) => self.queue.give_up(&batch),
            }
            let keys: Vec<Key> = batch.entries.iter().map(|(key, _)| *key).collect();
            // Leases end after their entries have left the queue; `Holds::release` relies on this order.
            self.holds.written(&keys, &self.manager);
        }
    }

    /// Writes a batch. Returns the number of refused entries, or an error if all attempts failed.
    async fn write(&self, batch: &WriteBatch) -> Result<u64, ()> {
        for _ in 0..TRIES {
            // This waits for the whole outage. Meanwhile reads find the entries in the queue.
            let link = self.manager.status.up().await;
            if let Some(unwritten) = self.write_over(&link, batch).await {
                self.delete_removed(&link, batch).await;
                return Ok(unwritten);
            }
        }
        Err(())
    }

    async fn write_over(&self, link: &Arc<Link>, batch: &WriteBatch) -> Option<u64> {
        let entries = self.commands(batch);
        if entries.is_empty() {
            return Some(0);
        }
        let written = link.write(entries, WRITE_WITHIN.max(self.manager.config.timeout)).await;
        let status = &self.manager.status;
        match &written.error {
            None => {
                status.answered();
                status.takes_writes(None);
            }
            Some(refused @ LinkError::Refused(_)) => status.takes_writes(Some(refused)),
            Some(error) => {
                status.failed(link, error);
                // A part of the batch may be stored. The next attempt writes the same values again.
                return None;
            }
        }
        Some(written.each.iter().filter(|written| written.is_none()).count() as u64)
    }

    /// Deletes the records of entries that were removed while the batch was under way. Their own deletion may have come
    /// before the write.
    async fn delete_removed(&self, link: &Link, batch: &WriteBatch) {
        let removed = self.queue.removed(batch);
        if let Err(error) = self.manager.delete(link, &removed).await {
            // They are dead by their counts, so they are never served.
            tracing::debug!(cause = error.cause(), "a forgotten record may stay in Redis until it expires");
        }
    }

    /// Returns name, value and TTL in milliseconds of each entry that must be written.
    fn commands(&self, batch: &WriteBatch) -> Vec<(String, Bytes, u64)> {
        let (now_ms, clear_count) = (self.clock.now_ms(), self.manager.ledger.clear_count());
        // The count of clearings is read first. A clearing empties the queue before it raises the count, so no entry from
        // before a clearing gets a name of the new count.
        let command = |(key, entry): (&Key, &AtRest)| {
            let for_ms = entry.until_ms.saturating_sub(now_ms).min(LONGEST_MS);
            // Redis refuses a TTL of zero.
            (for_ms > 0).then(|| (self.manager.names.record(key, clear_count), entry.bytes.clone(), for_ms))
        };
        self.queue.wanted(batch).filter_map(command).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::ledger::Ledger;
    use super::*;
    use crate::config::Config;
    use crate::key::{KeyBuilder, Tag};
    use crate::process::tasks::Tasks;

    #[tokio::test]
    async fn a_removed_entry_is_not_written_even_if_its_key_is_put_again() {
        let config = Config::from_pairs(&[]).expect("the defaults are legal").redis;
        let manager = Arc::new(LinkManager::new(config, Ledger::new(Arc::default()), Clock::manual(0), Tasks::new()));
        let (queue, holds) = (Arc::new(WriteQueue::new(10_000, BATCH)), Arc::new(Holds::new(Tasks::new())));
        let writer = RedisWriter { manager, queue: Arc::clone(&queue), holds, clock: Clock::manual(0) };
        let key = KeyBuilder::new(None).part(Tag::Text, b"x").finish();
        let entry = |value: &'static [u8]| AtRest { bytes: Bytes::from_static(value), until_ms: 10 };
        let values = |batch: &_| writer.commands(batch).into_iter().map(|(_, value, _)| value).collect::<Vec<_>>();
        queue.push(key, entry(b"old"));
        let batch = queue.next().await;
        assert_eq!(values(&batch), ["old"]);
        queue.clear();
        queue.push(key, entry(b"new"));
        assert!(values(&batch).is_empty());
        assert_eq!(values(&queue.next().await), ["new"]);
        let other = KeyBuilder::new(None).part(Tag::Text, b"y").finish();
        queue.push(key, entry(b"forgotten"));
        queue.push(other, entry(b"other"));
        let batch = queue.next().await;
        queue.remove(&[key]);
        assert_eq!((values(&batch), queue.removed(&batch)), (vec![Bytes::from_static(b"other")], vec![key]));
        queue.push(key, entry(b"newest"));
        assert_eq!((values(&batch), queue.removed(&batch)), (vec![Bytes::from_static(b"other")], vec![]));
    }
}
