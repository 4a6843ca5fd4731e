//! Write-behind queue, bounded in bytes. Reads find entries in it until they are written.
//!
//! Entries are gathered before they are written: a batch is complete once its first entry has waited for the linger
//! time, once it is full, or at once while [`WriteQueue::drained`] is awaited. So the writer is woken a few times for
//! each batch and not for each entry.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::AtRest;
use crate::key::{Key, KeyMap};

/// Estimated memory of a queued entry in addition to its bytes.
const OVERHEAD_BYTES: usize = 128;

/// Limits of a batch.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Size in bytes at which a batch is full. The entry that fills it is part of it.
    pub full_bytes: usize,
    /// Longest time for which the first entry of a batch waits for further ones.
    pub linger: Duration,
}

/// Write-behind queue of one tier.
#[derive(Debug)]
pub struct WriteQueue {
    pending: Mutex<PendingWrites>,
    /// Wakes the writer: a batch begins, is full, or must not wait any longer.
    ready: Notify,
    settled: Notify,
    max_bytes: usize,
    batch: BatchLimits,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct PendingWrites {
    /// Keys that no batch has taken yet, each once.
    order: VecDeque<Key>,
    /// Size of the entries in `order`.
    order_bytes: usize,
    /// Time since which `order` is not empty.
    since: Instant,
    entries: KeyMap<QueuedWrite>,
    bytes: usize,
    puts: u64,
    /// Number of callers that wait for an empty queue.
    drains: usize,
}

/// State of the next batch.
enum NextBatch {
    Nothing,
    /// The batch is complete at this time at the latest.
    Until(Instant),
    Complete(WriteBatch),
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
    pub fn new(max_bytes: usize, batch: BatchLimits) -> Self {
        // A small queue still has room for new entries while a batch is written.
        let batch = BatchLimits { full_bytes: batch.full_bytes.min(max_bytes / 4), ..batch };
        Self {
            pending: Mutex::new(PendingWrites::new()),
            ready: Notify::new(),
            settled: Notify::new(),
            max_bytes,
            batch,
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
        let was_full = pending.order_bytes >= self.batch.full_bytes;
        let is_first = pending.insert(key, entry, size);
        let is_full = pending.order_bytes >= self.batch.full_bytes;
        drop(pending);
        // At any other time, the writer either has been woken or waits for the end of the linger time.
        if is_first || is_full && !was_full {
            self.ready.notify_one();
        }
        Queued::Waiting
    }

    /// Returns the entry under `key`, if it is queued or being written.
    pub fn get(&self, key: &Key) -> Option<Bytes> {
        self.lock().entries.get(key).map(|entry| entry.at_rest.bytes.clone())
    }

    /// Returns true if there is an entry under `key` that is queued or being written.
    pub fn holds(&self, key: &Key) -> bool {
        self.lock().entries.contains_key(key)
    }

    /// Returns the entries of a batch that must still be written. An entry that was removed meanwhile must not be, even
    /// if its key was put again. Each entry is checked when the iterator reaches it.
    pub fn wanted<'b>(&self, batch: &'b WriteBatch) -> impl Iterator<Item = (&'b Key, &'b AtRest)> {
        let entries = batch.entries.iter().zip(&batch.puts);
        entries.filter(|((key, _), put)| self.holds_put(key, **put)).map(|((key, entry), _)| (key, entry))
    }

    /// Returns the keys of a batch without an entry in the queue. They were removed while the batch was under way.
    pub fn removed(&self, batch: &WriteBatch) -> Vec<Key> {
        let pending = self.lock();
        batch.entries.iter().map(|(key, _)| *key).filter(|key| !pending.entries.contains_key(key)).collect()
    }

    fn holds_put(&self, key: &Key, put: u64) -> bool {
        self.lock().entries.get(key).is_some_and(|entry| entry.put == put)
    }

    /// Waits until a batch is complete and returns it. It has at least one entry.
    pub async fn next(&self) -> WriteBatch {
        loop {
            // `notify_one` stores a permit, so a push between this line and the wait below wakes the writer.
            let gathered = self.lock().gather(&self.batch);
            match gathered {
                NextBatch::Nothing => self.ready.notified().await,
                // The wait ends early if the batch is full or a drain begins; `gather` then decides again.
                NextBatch::Until(complete) => drop(timeout_at(complete, self.ready.notified()).await),
                NextBatch::Complete(batch) => return batch,
            }
        }
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

    /// Removes the entries of these keys.
    pub fn remove(&self, keys: &[Key]) {
        let mut pending = self.lock();
        for key in keys {
            let Some(entry) = pending.entries.remove(key) else { continue };
            let size = size(&entry.at_rest);
            pending.bytes -= size;
            // A batch under way keeps its entries. Its writer skips them, because `wanted` leaves them out from now on.
            if !entry.is_taken {
                pending.order_bytes -= size;
                pending.order.retain(|queued| queued != key);
            }
        }
        drop(pending);
        self.settled.notify_waiters();
    }

    /// Removes all entries.
    pub fn clear(&self) {
        let mut pending = self.lock();
        // A batch under way keeps its entries. Its writer skips them, as after `remove`.
        pending.order.clear();
        pending.order_bytes = 0;
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

    /// Resolves once the queue is empty. Until then, entries are written without waiting for further ones.
    pub async fn drained(&self) {
        let _drain = Drain::begin(self);
        loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            // `notify_waiters` stores no permit, so the wait is registered before the queue is checked.
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

impl PendingWrites {
    fn new() -> Self {
        Self {
            order: VecDeque::new(),
            order_bytes: 0,
            since: Instant::now(),
            entries: KeyMap::default(),
            bytes: 0,
            puts: 0,
            drains: 0,
        }
    }

    /// Adds an entry of `size` bytes. Returns true if it is the first of a batch.
    fn insert(&mut self, key: Key, at_rest: AtRest, size: usize) -> bool {
        self.puts += 1;
        let old = self.entries.insert(key, QueuedWrite { at_rest, put: self.puts, is_taken: false });
        let old_size = old.as_ref().map_or(0, |old| self::size(&old.at_rest));
        self.bytes = self.bytes + size - old_size;
        // A key that is put repeatedly keeps its place, so the order grows only with the number of entries.
        if old.is_some_and(|old| !old.is_taken) {
            self.order_bytes = self.order_bytes + size - old_size;
            return false;
        }
        let is_first = self.order.is_empty();
        if is_first {
            self.since = Instant::now();
        }
        self.order.push_back(key);
        self.order_bytes += size;
        is_first
    }

    /// Takes the next batch if it is complete.
    fn gather(&mut self, limits: &BatchLimits) -> NextBatch {
        if self.order.is_empty() {
            return NextBatch::Nothing;
        }
        let complete = self.since + limits.linger;
        let must_wait = self.drains == 0 && self.order_bytes < limits.full_bytes;
        if must_wait && Instant::now() < complete {
            NextBatch::Until(complete)
        } else {
            NextBatch::Complete(self.take(limits))
        }
    }

    /// Takes entries until the batch is full.
    fn take(&mut self, limits: &BatchLimits) -> WriteBatch {
        // Each entry counts at least its overhead, so a full batch has at most this many.
        let most = self.order.len().min(limits.full_bytes / OVERHEAD_BYTES + 1);
        let (mut entries, mut puts, mut bytes) = (Vec::with_capacity(most), Vec::with_capacity(most), 0);
        // The first entry is always taken, even if a tiny queue makes the limit zero.
        while (bytes == 0 || bytes < limits.full_bytes)
            && let Some(key) = self.order.pop_front()
        {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            entry.is_taken = true;
            bytes += size(&entry.at_rest);
            // The entry stays in the map until it is written, so reads find it. The clone shares its bytes.
            entries.push((key, entry.at_rest.clone()));
            puts.push(entry.put);
        }
        self.order_bytes -= bytes;
        WriteBatch { entries, puts }
    }
}

/// A caller that waits for an empty queue, until it is dropped.
struct Drain<'a>(&'a WriteQueue);

impl<'a> Drain<'a> {
    fn begin(queue: &'a WriteQueue) -> Self {
        queue.lock().drains += 1;
        // The writer may wait for the end of the linger time.
        queue.ready.notify_one();
        Self(queue)
    }
}

impl Drop for Drain<'_> {
    fn drop(&mut self) {
        // This also runs if the caller is dropped while it waits, so later batches are gathered again.
        self.0.lock().drains -= 1;
    }
}

fn size(entry: &AtRest) -> usize {
    entry.bytes.len() + OVERHEAD_BYTES
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
