//! The store as a tier: reads on blocking threads, write-behind, and the close.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout, timeout_at};

use super::DiskStore;
use super::state::{StoreState, StoreStatus, unnoted};
use super::unerased::UnerasedKeys;
use super::worker::{BATCH, DiskSettings, DiskWorker};
use crate::cache::purges::{PurgeRegistry, PurgeSubject};
use crate::cache::{AtRest, Durability, LowerTier, Queued, Tier, TierStats, WriteQueue};
use crate::key::Key;
use crate::observe::metrics::Metrics;
use crate::process::clock::Clock;
use crate::process::tasks::Tasks;
use futures_util::future::BoxFuture;

/// Longest wait for the store at startup. A slower store continues to open while the first requests are served.
const OPEN_WITHIN: Duration = Duration::from_millis(500);
/// Timeout of a read. A slower disk costs more than it saves.
const READ_WITHIN: Duration = Duration::from_secs(2);
/// Longest wait until a purge is recorded.
const NOTE_WITHIN: Duration = Duration::from_secs(10);
/// Longest wait until forgotten entries are overwritten. A slower disk goes on in the background.
const ERASE_WITHIN: Duration = Duration::from_secs(20);
/// Time to close the store, also if the queue took the whole time. A store that is not closed opens more slowly.
const CLOSE_WITHIN: Duration = Duration::from_millis(100);
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
    pub purges: Arc<PurgeRegistry>,
}

/// The disk tier.
#[derive(Debug)]
pub struct DiskTier {
    pub(super) settings: DiskSettings,
    pub(super) parts: DiskParts,
    pub(super) status: Arc<StoreStatus>,
    pub(super) queue: Arc<WriteQueue>,
    pub(super) tasks: Tasks,
    pub(super) unerased: Arc<UnerasedKeys>,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl DiskTier {
    /// Opens the store in the background, and waits briefly for it.
    pub async fn start(settings: DiskSettings, parts: DiskParts) -> Self {
        let (status, faults) = StoreStatus::new();
        let (status, queue) = (Arc::new(status), Arc::new(WriteQueue::new(settings.queue_bytes, BATCH)));
        let tasks = Tasks::new();
        let worker = DiskWorker {
            settings: settings.clone(),
            status: Arc::clone(&status),
            queue: Arc::clone(&queue),
            purges: Arc::clone(&parts.purges),
            faults,
        };
        let until = Instant::now() + OPEN_WITHIN;
        // Purge counts of this process continue those of earlier processes, so load them first. `DiskWorker` reads them
        // again.
        let (path, purges) = (settings.path.clone(), Arc::clone(&parts.purges));
        let learnt = spawn_blocking(move || {
            DiskStore::purges_in(&path).map(|noted| purges.learn_all(&noted.counts, &noted.forgotten))
        });
        timeout_at(until, learnt).await.ok();
        tasks.spawn_until_stop(worker.run());
        timeout_at(until, status.known()).await.ok();
        let (unerased, hits, misses) = (Arc::default(), AtomicU64::new(0), AtomicU64::new(0));
        Self { settings, parts, status, queue, tasks, unerased, hits, misses }
    }

    async fn find(&self, keys: &[Key]) -> Vec<Option<Bytes>> {
        let begun = Instant::now();
        // Queued entries are newer than those on disk, and are found even while the store is opening.
        let mut found: Vec<Option<Bytes>> = keys.iter().map(|key| self.queue.get(key)).collect();
        if let Some(store) = self.status.store() {
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
        self.parts.metrics.tiers.lookup(Tier::Disk, begun.elapsed());
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
            Ok(Ok(Err(fault))) => self.status.fail(&fault),
            Ok(Err(panicked)) => self.status.fail(&panicked),
            // The blocking thread cannot be interrupted. It ends once the disk answers.
            Err(_) => self.status.fail(&"reading takes too long"),
        }
        // The caller takes missing values for misses.
        Vec::new()
    }

    async fn handle_purge(&self, subject: &PurgeSubject, erase_within: Duration) -> (u64, Durability) {
        // Queued entries go first, so none is written after the others were erased.
        if let PurgeSubject::Inputs(keys) = subject {
            self.queue.remove(keys);
        }
        let noted = timeout(NOTE_WITHIN, self.note_purge(subject)).await.unwrap_or_else(|_| {
            self.status.request_clear();
            (None, unnoted("it takes too long"))
        });
        match (subject, noted) {
            (PurgeSubject::Inputs(keys), (Some(store), Durability::ForGood)) => {
                self.erase(store, keys, erase_within).await
            }
            (_, (_, durability)) => (0, durability),
        }
    }

    async fn finish(&self, timeout: Duration) -> usize {
        let until = Instant::now() + timeout;
        // A store that is still opening gets the time to open, so the queue can be written.
        timeout_at(until, self.status.known()).await.ok();
        timeout_at(until, self.queue.drained()).await.ok();
        let until = until.max(Instant::now() + CLOSE_WITHIN);
        // The worker ends before the store is closed, so it neither writes to the closed store nor reopens it.
        self.tasks.stop();
        self.tasks.join(until.saturating_duration_since(Instant::now())).await;
        let left = self.queue.len();
        if let Some(store) = self.status.store() {
            self.status.set(StoreState::Off);
            if let Err(fault) = self.seal(store, until).await {
                tracing::warn!(
                    %fault,
                    "the disk tier was not closed cleanly; the next start has to scan the last segment"
                );
            }
        }
        left
    }

    /// Records purges and closes the store.
    async fn seal(&self, store: Arc<DiskStore>, until: Instant) -> io::Result<()> {
        let (status, purges) = (Arc::clone(&self.status), Arc::clone(&self.parts.purges));
        let close = move || {
            // The unsent purges in the file may have been sent since, and later ones may be missing in it.
            let has_unsent = status.has_saved_unsent() || !purges.unsent().is_empty();
            let noted = if has_unsent { store.note_purges(&purges).map(drop) } else { Ok(()) };
            // Seal the last segment even if the purges cannot be recorded.
            store.close().and(noted)
        };
        let closed =
            timeout_at(until, spawn_blocking(close)).await.map_err(|_| io::Error::other("it takes too long"))?;
        closed.map_err(io::Error::other).flatten()
    }
}

impl LowerTier for DiskTier {
    fn tier(&self) -> Tier {
        Tier::Disk
    }

    fn remembers_purges(&self) -> bool {
        true
    }

    fn get<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Vec<Option<Bytes>>> {
        Box::pin(self.find(keys))
    }

    fn put(&self, key: Key, entry: AtRest) {
        // While the tier is off, nothing takes entries from the queue.
        if self.status.is_off() {
            self.queue.lose(1);
        } else if self.queue.push(key, entry) == Queued::Dropped {
            tracing::debug!("the queue of writes to the disk is full; an entry is dropped");
        }
    }

    fn purged<'a>(&'a self, _: &'a Arc<PurgeRegistry>, subject: &'a PurgeSubject) -> BoxFuture<'a, (u64, Durability)> {
        Box::pin(self.handle_purge(subject, ERASE_WITHIN))
    }

    fn note_ahead(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Some(store) = self.status.store() {
                // If recording takes longer, it is repeated when the purges are settled.
                timeout(NOTE_AHEAD_WITHIN, self.note(store, None)).await.ok();
            }
        })
    }

    fn clear(&self) -> BoxFuture<'_, (u64, Durability)> {
        Box::pin(async move {
            timeout(NOTE_WITHIN, self.let_go()).await.unwrap_or_else(|_| {
                self.status.request_clear();
                (0, Durability::Pending)
            })
        })
    }

    fn each(&self, visit: &mut dyn FnMut(&Key, &[u8]) -> ControlFlow<()>) -> ControlFlow<()> {
        self.status.store().map_or(ControlFlow::Continue(()), |store| store.each(visit))
    }

    fn drained(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.queue.drained())
    }

    fn stats(&self) -> TierStats {
        let store = self.status.store();
        let held = store.as_ref().map(|store| store.stats()).unwrap_or_default();
        TierStats {
            up: store.is_some(),
            cause: self.status.cause(),
            entries: held.entries,
            bytes: held.bytes,
            capacity_bytes: self.settings.bounds.max_bytes,
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            evictions: held.evicted,
            dropped: self.queue.dropped(),
        }
    }

    fn close(&self, timeout: Duration) -> BoxFuture<'_, usize> {
        Box::pin(self.finish(timeout))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::task::JoinHandle;

    use super::*;
    use crate::cache::disk::DiskBounds;
    use crate::cache::disk::tests::Folder;
    use crate::cache::purges::{PurgeCounts, SavedPurges, UnsentPurges};

    async fn tier(folder: &Folder) -> DiskTier {
        let bounds = DiskBounds { max_bytes: 16 << 20, max_entries: u64::MAX };
        let (path, off_for) = (folder.path().to_owned(), Duration::from_secs(1));
        let settings = DiskSettings { path, bounds, queue_bytes: 1 << 20, off_for };
        let (clock, metrics, purges) = (Clock::manual(0), Metrics::new("test"), Arc::default());
        DiskTier::start(settings, DiskParts { clock, metrics, purges }).await
    }

    /// Holds the lock of all writes until the sender is dropped, as a disk that hangs does.
    fn hold_appender(store: &Arc<DiskStore>) -> (JoinHandle<()>, mpsc::Sender<()>) {
        let ((holds, held), (let_go, until)) = (mpsc::channel(), mpsc::channel::<()>());
        let hung = Arc::clone(store);
        let hanging = spawn_blocking(move || {
            let _appender = hung.lock_appender();
            holds.send(()).expect("the test waits for it");
            until.recv().ok();
        });
        held.recv().expect("it is held");
        (hanging, let_go)
    }

    fn noted(folder: &Folder) -> SavedPurges {
        DiskStore::purges_in(folder.path()).expect("it can be read")
    }

    #[tokio::test]
    async fn sent_purges_are_removed_from_disk_before_the_process_ends() {
        let folder = Folder::new();
        let tier = tier(&folder).await;
        let purges = Arc::clone(&tier.parts.purges);
        let name = purges.raise(None, 0);
        purges.add_unsent("elsewhere");
        let subject = PurgeSubject::counted_as(&name);
        assert_eq!(tier.purged(&purges, &subject).await, (0, Durability::ForGood));
        assert_eq!(noted(&folder).unsent, UnsentPurges::from([("elsewhere".to_owned(), 1)]));
        purges.mark_sent(&purges.unsent());
        let sent = async {
            while !noted(&folder).unsent.is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(10), sent).await.expect("they must be noted as paid");
    }

    #[tokio::test]
    async fn purges_of_other_replicas_are_written_to_disk_before_they_apply() {
        let folder = Folder::new();
        let tier = tier(&folder).await;
        let elsewhere = PurgeCounts::from([("a".to_owned(), 2)]);
        tier.parts.purges.expect(&elsewhere);
        tier.note_ahead().await;
        assert_eq!(noted(&folder).counts, elsewhere);
    }

    #[tokio::test]
    async fn a_slow_erasure_is_reported_and_costs_no_other_entry() {
        let folder = Folder::new();
        let tier = tier(&folder).await;
        let store = tier.status.store().expect("it is open");
        let keys = [1, 2].map(|n| Key::from_bytes([n; 32]));
        for key in keys {
            store.put(key, &AtRest { bytes: Bytes::from_static(b"x"), until_ms: 1 }).expect("it must be written");
        }
        let (hanging, let_go) = hold_appender(&store);
        tier.parts.purges.forgotten().raise(&keys[..1], 1);
        let subject = PurgeSubject::of_inputs(&keys[..1]);
        let settled = tier.handle_purge(&subject, Duration::from_millis(10)).await;
        assert_eq!(settled, (0, Durability::Unerased));
        assert_eq!(noted(&folder).forgotten.len(), 1, "the forget is recorded");
        drop(let_go);
        hanging.await.expect("it does not panic");
        let erased = async {
            while store.holds(&keys[0]) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(10), erased).await.expect("the erasure must go on");
        // A later purge runs all that was requested meanwhile.
        tier.note_ahead().await;
        assert!(store.holds(&keys[1]), "its neighbour stays");
    }

    #[tokio::test]
    async fn a_tier_is_closed_and_its_worker_has_ended_even_if_no_time_is_left() {
        let folder = Folder::new();
        let (open, locked_out) = (tier(&folder).await, tier(&folder).await);
        assert!(open.status.store().is_some() && locked_out.status.store().is_none());
        for tier in [locked_out, open] {
            assert_eq!(tier.close(Duration::ZERO).await, 0);
            assert_eq!(tier.tasks.running(), 0);
        }
        // The folder is locked until the store is closed.
        drop(folder.open());
    }

    #[tokio::test]
    async fn a_store_that_takes_too_long_to_close_is_reported() {
        let folder = Folder::new();
        let tier = tier(&folder).await;
        let store = tier.status.store().expect("it is open");
        let (hanging, let_go) = hold_appender(&store);
        let error = tier.seal(store, Instant::now() + Duration::from_millis(10)).await.expect_err("it hangs");
        assert_eq!(error.to_string(), "it takes too long");
        drop(let_go);
        hanging.await.expect("it does not panic");
    }
}
