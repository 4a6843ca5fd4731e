//! Write-behind queue, bounded in bytes. Reads find entries in it until they are written.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::AtRest;
use crate::key::Key;

/// Estimated memory of a queued entry in addition to its bytes.
const OVERHEAD_BYTES: usize = 128;

/// Write-behind queue of one tier.
#[derive(Debug)]
pub struct WriteQueue {
    pending: Mutex<PendingWrites>,
    arrived: Notify,
    settled: Notify,
    max_bytes: usize,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct PendingWrites {
    /// Keys that no batch has taken yet, each once.
    order: VecDeque<Key>,
    entries: HashMap<Key, QueuedWrite>,
    bytes: usize,
    puts: u64,
}

#[derive(Debug)]
struct QueuedWrite {
    at_rest: AtRest,
    /// Number of the put that stored the entry.
    put: u64,
    /// True if a batch has taken the entry.
    is_taken: bool,
}

/// Outcome of a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queued {
    /// The entry is queued.
    Waiting,
    /// The queue was full.
    Dropped,
}

/// Entries that are being written. Reads find them until [`WriteQueue::done`].
#[derive(Debug)]
pub struct WriteBatch {
    /// The entries.
    pub entries: Vec<(Key, AtRest)>,
    puts: Vec<u64>,
}

impl WriteQueue {
    /// Creates an empty queue.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            pending: Mutex::default(),
            arrived: Notify::new(),
            settled: Notify::new(),
            max_bytes,
            dropped: AtomicU64::new(0),
        }
    }

    /// Counts entries that the tier refused to store.
    pub fn lose(&self, entries: u64) {
        self.dropped.fetch_add(entries, Ordering::Relaxed);
    }

    /// Queues an entry, if there is room for it.
    pub fn push(&self, key: Key, entry: AtRest) -> Queued {
        let size = size(&entry);
        let mut pending = self.lock();
        if pending.bytes + size > self.max_bytes {
            drop(pending);
            self.lose(1);
            return Queued::Dropped;
        }
        pending.puts += 1;
        let put = pending.puts;
        let old = pending.entries.insert(key, QueuedWrite { at_rest: entry, put, is_taken: false });
        pending.bytes += size;
        pending.bytes -= old.as_ref().map_or(0, |old| self::size(&old.at_rest));
        // A key that is put repeatedly keeps its place, so the order grows only with the number of entries.
        if old.is_none_or(|old| old.is_taken) {
            pending.order.push_back(key);
        }
        drop(pending);
        self.arrived.notify_one();
        Queued::Waiting
    }

    /// Returns the entry under `key`, if it is queued or being written.
    pub fn get(&self, key: &Key) -> Option<Bytes> {
        self.lock().entries.get(key).map(|entry| entry.at_rest.bytes.clone())
    }

    /// Waits for entries and returns the next batch: at least one entry, and not much more than `max_bytes`.
    pub async fn next(&self, max_bytes: usize) -> WriteBatch {
        loop {
            let batch = self.take(max_bytes);
            if !batch.entries.is_empty() {
                return batch;
            }
            self.arrived.notified().await;
        }
    }

    fn take(&self, max_bytes: usize) -> WriteBatch {
        let pending = &mut *self.lock();
        let (mut batch, mut bytes) = (WriteBatch { entries: Vec::new(), puts: Vec::new() }, 0);
        while bytes < max_bytes
            && let Some(key) = pending.order.pop_front()
        {
            let Some(entry) = pending.entries.get_mut(&key) else { continue };
            entry.is_taken = true;
            bytes += size(&entry.at_rest);
            batch.entries.push((key, entry.at_rest.clone()));
            batch.puts.push(entry.put);
        }
        batch
    }

    /// Removes the entries of a batch, after they were written or given up.
    pub fn done(&self, batch: &WriteBatch) {
        let mut pending = self.lock();
        for ((key, entry), put) in batch.entries.iter().zip(&batch.puts) {
            // An entry that was put again meanwhile still has to be written.
            if pending.entries.get(key).is_some_and(|latest| latest.put == *put) {
                pending.entries.remove(key);
                pending.bytes -= size(entry);
            }
        }
        drop(pending);
        self.settled.notify_waiters();
    }

    /// Gives up a batch that could not be written, and counts its entries as dropped.
    pub fn give_up(&self, batch: &WriteBatch) {
        self.dropped.fetch_add(batch.entries.len() as u64, Ordering::Relaxed);
        self.done(batch);
    }

    /// Gives up all queued entries and counts them as dropped.
    pub fn give_up_all(&self) {
        self.dropped.fetch_add(self.len() as u64, Ordering::Relaxed);
        self.clear();
    }

    /// Removes all entries.
    pub fn clear(&self) {
        let mut pending = self.lock();
        pending.order.clear();
        pending.entries.clear();
        pending.bytes = 0;
        drop(pending);
        self.settled.notify_waiters();
    }

    /// Returns the number of entries that are queued or being written.
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Returns true if the queue is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of entries that were never written.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Resolves once the queue is empty.
    pub async fn drained(&self) {
        loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            if self.is_empty() {
                return;
            }
            settled.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, PendingWrites> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn size(entry: &AtRest) -> usize {
    entry.bytes.len() + OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{KeyBuilder, Tag};

    fn key(n: u8) -> Key {
        KeyBuilder::new(None).part(Tag::Text, &[n]).finish()
    }

    fn entry(text: &'static str) -> AtRest {
        AtRest { bytes: Bytes::from_static(text.as_bytes()), until_ms: 1 }
    }

    #[tokio::test]
    async fn what_waits_or_is_being_written_is_found_until_it_is_written() {
        let queue = WriteQueue::new(10_000);
        assert_eq!(queue.push(key(1), entry("one")), Queued::Waiting);
        assert_eq!(queue.get(&key(1)).as_deref(), Some(&b"one"[..]));
        let batch = queue.next(1_000).await;
        assert_eq!(batch.entries, [(key(1), entry("one"))]);
        assert!(queue.get(&key(1)).is_some() && !queue.is_empty());
        queue.done(&batch);
        assert!(queue.get(&key(1)).is_none() && queue.is_empty());
        queue.drained().await;
    }

    #[tokio::test]
    async fn what_is_put_in_again_while_it_is_written_is_written_again() {
        let queue = WriteQueue::new(10_000);
        queue.push(key(1), entry("old"));
        let batch = queue.next(1_000).await;
        queue.push(key(1), entry("new"));
        queue.done(&batch);
        assert_eq!(queue.get(&key(1)).as_deref(), Some(&b"new"[..]));
        assert_eq!(queue.next(1_000).await.entries, [(key(1), entry("new"))]);
    }

    #[tokio::test]
    async fn the_later_of_two_is_written_once() {
        let queue = WriteQueue::new(10_000);
        queue.push(key(1), entry("old"));
        queue.push(key(1), entry("new"));
        let batch = queue.next(1_000).await;
        assert_eq!(batch.entries, [(key(1), entry("new"))]);
        queue.done(&batch);
        assert_eq!((queue.len(), queue.lock().bytes), (0, 0));
    }

    #[tokio::test]
    async fn what_is_put_in_again_and_again_takes_no_more_room() {
        let queue = WriteQueue::new(10_000);
        for _ in 0..1_000 {
            assert_eq!(queue.push(key(1), entry("one")), Queued::Waiting);
        }
        let room = || {
            let pending = queue.lock();
            (pending.order.len(), pending.entries.len(), pending.bytes)
        };
        assert_eq!(room(), (1, 1, OVERHEAD_BYTES + 3));
        let batch = queue.next(1_000).await;
        for _ in 0..1_000 {
            assert_eq!(queue.push(key(1), entry("two")), Queued::Waiting);
        }
        queue.done(&batch);
        assert_eq!(room(), (1, 1, OVERHEAD_BYTES + 3));
        assert_eq!(queue.next(1_000).await.entries, [(key(1), entry("two"))]);
    }

    #[test]
    fn more_than_the_bound_is_dropped_and_counted() {
        let queue = WriteQueue::new(OVERHEAD_BYTES + 3);
        assert_eq!(queue.push(key(1), entry("one")), Queued::Waiting);
        assert_eq!(queue.push(key(2), entry("two")), Queued::Dropped);
        assert_eq!((queue.len(), queue.dropped()), (1, 1));
    }

    #[tokio::test]
    async fn a_queue_that_is_cleared_has_all_its_room_again_and_nothing_to_wait_for() {
        let queue = WriteQueue::new(OVERHEAD_BYTES + 3);
        queue.push(key(1), entry("one"));
        let mut drained = Box::pin(queue.drained());
        assert!(futures_util::poll!(&mut drained).is_pending());
        queue.clear();
        assert!(futures_util::poll!(&mut drained).is_ready());
        assert_eq!((queue.len(), queue.dropped()), (0, 0), "what is cleared is not lost");
        assert_eq!(queue.push(key(2), entry("two")), Queued::Waiting);
        assert_eq!(queue.next(1_000).await.entries, [(key(2), entry("two"))]);
    }

    #[tokio::test]
    async fn what_is_given_up_leaves_and_is_counted() {
        let queue = WriteQueue::new(10_000);
        for n in 0..5 {
            queue.push(key(n), entry("x"));
        }
        let batch = queue.next(1).await;
        assert_eq!(batch.entries.len(), 1, "a batch ends with the entry that fills it");
        queue.give_up(&batch);
        assert_eq!((queue.len(), queue.dropped()), (4, 1));
        queue.give_up_all();
        assert_eq!((queue.len(), queue.dropped()), (0, 5));
        queue.lose(2);
        assert_eq!(queue.dropped(), 7);
    }
}
