//! The store as a tier: reads on blocking threads, write-behind, and purges that survive the process.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout, timeout_at};

use super::keeper::{BATCH, DiskSettings, Keeper};
use super::state::{State, Switch};
use super::{DiskStore, OpenError};
use crate::cache::purges::{EVERYTHING, PurgeRegistry, SavedPurges};
use crate::cache::{AtRest, Durability, LowerStats, LowerTier, Queued, Tier, WriteQueue};
use crate::key::Key;
use crate::observe::metrics::{Metrics, Tier as TierLabel};
use crate::process::clock::Clock;
use crate::process::tasks::Tasks;
use futures_util::future::BoxFuture;

/// Longest wait for the store at startup. A slower store continues to open while the first requests are served.
const OPEN_WITHIN: Duration = Duration::from_millis(500);
/// Timeout of a read. A slower disk costs more than it saves.
const READ_WITHIN: Duration = Duration::from_secs(2);
/// Longest wait until a purge is recorded.
const NOTE_WITHIN: Duration = Duration::from_secs(10);
/// Longest wait until purges of other replicas are recorded, before they are applied here.
const NOTE_AHEAD_WITHIN: Duration = Duration::from_secs(1);

/// Handles that the tier works with.
#[derive(Clone, Debug)]
pub struct DiskParts {
    /// Clock for expiry times.
    pub clock: Clock,
    /// Metrics of look-ups.
    pub metrics: Arc<Metrics>,
    /// Purge counts of this process.
    pub epochs: Arc<PurgeRegistry>,
}

/// The disk tier.
#[derive(Debug)]
pub struct DiskTier {
    settings: DiskSettings,
    parts: DiskParts,
    switch: Arc<Switch>,
    queue: Arc<WriteQueue>,
    tasks: Tasks,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl DiskTier {
    /// Opens the store in the background, and waits briefly for it.
    pub async fn start(settings: DiskSettings, parts: DiskParts) -> Self {
        let (switch, faults) = Switch::new();
        let (switch, queue) = (Arc::new(switch), Arc::new(WriteQueue::new(settings.queue_bytes, BATCH)));
        let tasks = Tasks::new();
        let keeper = Keeper {
            settings: settings.clone(),
            switch: Arc::clone(&switch),
            queue: Arc::clone(&queue),
            epochs: Arc::clone(&parts.epochs),
            faults,
        };
        let until = Instant::now() + OPEN_WITHIN;
        // Purge counts of this process continue those of earlier processes, so load them first. `Keeper` reads them
        // again.
        let (path, epochs) = (settings.path.clone(), Arc::clone(&parts.epochs));
        let learnt = spawn_blocking(move || DiskStore::purges_in(&path).map(|noted| epochs.learn(&noted.counts)));
        timeout_at(until, learnt).await.ok();
        tasks.spawn_until_stop(keeper.run());
        timeout_at(until, switch.known()).await.ok();
        Self { settings, parts, switch, queue, tasks, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    async fn find(&self, keys: &[Key]) -> Vec<Option<Bytes>> {
        let begun = Instant::now();
        let mut found: Vec<Option<Bytes>> = keys.iter().map(|key| self.queue.get(key)).collect();
        if let Some(store) = self.switch.store() {
            let held = |place: &usize| found[*place].is_none() && store.holds(&keys[*place]);
            let places: Vec<usize> = (0..keys.len()).filter(held).collect();
            // Most misses are known from the index without any disk access.
            if !places.is_empty() {
                let wanted = places.iter().map(|place| keys[*place]).collect();
                for (place, bytes) in places.into_iter().zip(self.read(store, wanted).await) {
                    found[place] = bytes;
                }
            }
        }
        let hits = found.iter().flatten().count();
        self.hits.fetch_add(hits as u64, Ordering::Relaxed);
        self.misses.fetch_add((keys.len() - hits) as u64, Ordering::Relaxed);
        self.parts.metrics.tiers.lookup(TierLabel::Disk, begun.elapsed());
        found
    }

    /// Reads all keys in one call to a blocking thread.
    async fn read(&self, store: Arc<DiskStore>, keys: Vec<Key>) -> Vec<Option<Bytes>> {
        let now_ms = self.parts.clock.now_ms();
        let read = spawn_blocking(move || {
            let entry = |key| Ok(store.get(key, now_ms)?.map(|entry| entry.bytes));
            keys.iter().map(entry).collect::<io::Result<Vec<_>>>()
        });
        match timeout(READ_WITHIN, read).await {
            Ok(Ok(Ok(values))) => return values,
            Ok(Ok(Err(fault))) => self.switch.fail(&fault),
            Ok(Err(panicked)) => self.switch.fail(&panicked),
            Err(_) => self.switch.fail(&"reading takes too long"),
        }
        Vec::new()
    }

    async fn note_purge(&self, name: &str) -> Durability {
        loop {
            if self.switch.store().is_none() {
                // The purges recorded in the folder may not be loaded yet, so the count of this purge may be too low.
                self.switch.owe_purge();
            }
            if let State::Open(store) = self.switch.known().await {
                return self.note(store, name == EVERYTHING).await;
            }
            match self.wipe().await {
                // The folder is locked. If this process holds the lock by now, the next round can record the purge.
                Err(OpenError::Held(_)) if !self.switch.is_off() => {}
                Err(error) => return unnoted(&error.to_string()),
                Ok(()) => return Durability::ForGood,
            }
        }
    }

    /// Records all purges. If that fails, removes all older entries instead and tries again.
    async fn note(&self, store: Arc<DiskStore>, is_all: bool) -> Durability {
        let (switch, epochs) = (Arc::clone(&self.switch), Arc::clone(&self.parts.epochs));
        let noted = spawn_blocking(move || {
            let noted = store.note_purges(&epochs).or_else(|_| {
                switch.owe_purge();
                switch.pay_purge(&store)?;
                // Clearing also freed disk space, so a second attempt may succeed.
                store.note_purges(&epochs)
            });
            switch.has_noted(noted?);
            if is_all { store.clear().map(drop) } else { switch.pay_purge(&store) }
        });
        match noted.await.map_err(io::Error::other).flatten() {
            Ok(()) => Durability::ForGood,
            Err(fault) => {
                self.switch.owe_purge();
                self.switch.fail(&fault);
                unnoted(&fault.to_string())
            }
        }
    }

    /// Removes the files of a store that cannot be opened. This mostly succeeds even if opening fails.
    async fn wipe(&self) -> Result<(), OpenError> {
        let (path, switch) = (self.settings.path.clone(), Arc::clone(&self.switch));
        let epochs = Arc::clone(&self.parts.epochs);
        let take_over = move |noted: &SavedPurges| {
            switch.take_over(noted, &epochs);
            let all = epochs.to_note();
            switch.has_noted(all.clone());
            all
        };
        spawn_blocking(move || DiskStore::wipe(&path, take_over)).await.expect("removing files must not panic")
    }

    async fn let_go(&self) -> (u64, Durability) {
        self.queue.clear();
        let State::Open(store) = self.switch.known().await else {
            self.switch.owe_purge();
            let wiped = self.wipe().await;
            return (0, if wiped.is_ok() { Durability::ForGood } else { Durability::Pending });
        };
        let cleared = spawn_blocking(move || store.clear()).await.map_err(io::Error::other).flatten();
        cleared.map_or_else(
            |fault| {
                self.switch.owe_purge();
                self.switch.fail(&fault);
                (0, Durability::Pending)
            },
            |entries| (entries, Durability::ForGood),
        )
    }

    async fn finish(&self, patience: Duration) -> usize {
        let until = Instant::now() + patience;
        timeout_at(until, self.switch.known()).await.ok();
        timeout_at(until, self.queue.drained()).await.ok();
        self.tasks.stop();
        let left = self.queue.len();
        if let Some(store) = self.switch.store() {
            self.switch.set(State::Off);
            let (switch, epochs) = (Arc::clone(&self.switch), Arc::clone(&self.parts.epochs));
            let close = move || {
                let has_debts = switch.owes_anything() || !epochs.unsent().is_empty();
                let noted = if has_debts { store.note_purges(&epochs).map(drop) } else { Ok(()) };
                // Seal the last segment even if the debts cannot be recorded.
                store.close().and(noted)
            };
            let closed = timeout_at(until, spawn_blocking(close)).await;
            if let Ok(Ok(Err(fault))) = closed {
                tracing::warn!(%fault, "the disk tier did not close well; it opens somewhat slower next time");
            }
        }
        left
    }
}

fn unnoted(fault: &str) -> Durability {
    tracing::warn!(fault, "a purge could not be noted on disk: after a restart, what was purged may be served again");
    Durability::Pending
}

impl LowerTier for DiskTier {
    fn tier(&self) -> Tier {
        Tier::Disk
    }

    fn get<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Vec<Option<Bytes>>> {
        Box::pin(self.find(keys))
    }

    fn put(&self, key: Key, entry: AtRest) {
        if self.switch.is_off() {
            self.queue.lose(1);
        } else if self.queue.push(key, entry) == Queued::Dropped {
            tracing::debug!("the disk is slower than the upstream: an entry is not written");
        }
    }

    fn purged<'a>(&'a self, _: &'a Arc<PurgeRegistry>, name: &'a str) -> BoxFuture<'a, Durability> {
        Box::pin(async move {
            timeout(NOTE_WITHIN, self.note_purge(name)).await.unwrap_or_else(|_| {
                self.switch.owe_purge();
                unnoted("it takes too long")
            })
        })
    }

    fn note_ahead(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Some(store) = self.switch.store() {
                // If recording takes longer, it is repeated when the purges are settled.
                timeout(NOTE_AHEAD_WITHIN, self.note(store, false)).await.ok();
            }
        })
    }

    fn clear(&self) -> BoxFuture<'_, (u64, Durability)> {
        Box::pin(async move {
            timeout(NOTE_WITHIN, self.let_go()).await.unwrap_or_else(|_| {
                self.switch.owe_purge();
                (0, Durability::Pending)
            })
        })
    }

    fn each(&self, visit: &mut dyn FnMut(&Key, &[u8]) -> ControlFlow<()>) -> ControlFlow<()> {
        self.switch.store().map_or(ControlFlow::Continue(()), |store| store.each(visit))
    }

    fn drained(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.queue.drained())
    }

    fn stats(&self) -> LowerStats {
        let store = self.switch.store();
        let held = store.as_ref().map(|store| store.stats()).unwrap_or_default();
        LowerStats {
            up: store.is_some(),
            cause: self.switch.cause(),
            entries: held.entries,
            bytes: held.bytes,
            capacity_bytes: self.settings.bounds.max_bytes,
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            evictions: held.evicted,
            dropped: self.queue.dropped(),
        }
    }

    fn close(&self, patience: Duration) -> BoxFuture<'_, usize> {
        Box::pin(self.finish(patience))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::disk::Bounds;
    use crate::cache::disk::tests::Folder;
    use crate::cache::purges::{PurgeCounts, UnsentPurges};

    async fn tier(folder: &Folder) -> DiskTier {
        let bounds = Bounds { max_bytes: 16 << 20, max_entries: u64::MAX };
        let (path, off_for) = (folder.path().to_owned(), Duration::from_secs(1));
        let settings = DiskSettings { path, bounds, queue_bytes: 1 << 20, off_for };
        let (clock, metrics, epochs) = (Clock::manual(0), Metrics::new("test"), Arc::default());
        DiskTier::start(settings, DiskParts { clock, metrics, epochs }).await
    }

    fn noted(folder: &Folder) -> SavedPurges {
        DiskStore::purges_in(folder.path()).expect("it can be read")
    }

    #[tokio::test]
    async fn debts_that_were_paid_are_noted_as_paid_before_the_process_ends() {
        let folder = Folder::new();
        let tier = tier(&folder).await;
        let epochs = Arc::clone(&tier.parts.epochs);
        let name = epochs.raise(None);
        epochs.owe("elsewhere");
        assert_eq!(tier.purged(&epochs, &name).await, Durability::ForGood);
        assert_eq!(noted(&folder).unsent, UnsentPurges::from([("elsewhere".to_owned(), 1)]));
        epochs.pay(&epochs.unsent());
        let paid = async {
            while !noted(&folder).unsent.is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(10), paid).await.expect("they must be noted as paid");
    }

    #[tokio::test]
    async fn purges_of_others_are_on_the_medium_once_they_are_noted_ahead() {
        let folder = Folder::new();
        let tier = tier(&folder).await;
        let elsewhere = PurgeCounts::from([("a".to_owned(), 2)]);
        tier.parts.epochs.expect(&elsewhere);
        tier.note_ahead().await;
        assert_eq!(noted(&folder).counts, elsewhere);
    }
}
