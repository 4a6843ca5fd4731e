//! Background task that opens the store and writes to it. After a failure it closes the tier for a while, then
//! retries.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::state::{StoreState, StoreStatus};
use super::{DiskBounds, DiskStore, OpenError};
use crate::cache::purges::PurgeRegistry;
use crate::cache::{BatchLimits, WriteBatch, WriteQueue};

/// Limits of a batch. Each costs a visit to a blocking thread, so entries are gathered for a few milliseconds, which is
/// also the time by which more of them are lost if the process is killed.
pub(super) const BATCH: BatchLimits = BatchLimits { full_bytes: 256 << 10, linger: Duration::from_millis(5) };

/// Free space that a store needs after an outage: a few batches, or one with the largest record.
const MIN_FREE_BYTES: usize = 5 << 18;

/// Settings of the disk tier.
#[derive(Clone, Debug)]
pub struct DiskSettings {
    /// Folder of the store.
    pub path: PathBuf,
    /// Limits of the store.
    pub bounds: DiskBounds,
    /// Limit on queued writes, in bytes.
    pub queue_bytes: usize,
    /// Time the tier stays off after a failure.
    pub off_for: Duration,
}

/// Background work of the tier.
pub(super) struct DiskWorker {
    pub(super) settings: DiskSettings,
    pub(super) status: Arc<StoreStatus>,
    pub(super) queue: Arc<WriteQueue>,
    pub(super) purges: Arc<PurgeRegistry>,
    pub(super) faults: mpsc::Receiver<String>,
}

impl DiskWorker {
    /// Opens the store and writes queued entries. After a failure it waits and reopens the store, until the task is
    /// stopped. Logs one line when the tier goes off and one when it is back.
    pub(super) async fn run(mut self) {
        let mut is_down = false;
        loop {
            match self.open(is_down).await {
                Ok(store) => {
                    tell_open(&store, is_down);
                    let fault = self.write_behind(store).await;
                    self.tell_off(&fault);
                }
                Err(error) if is_down => {
                    self.status.set_cause(Some(error.to_string()));
                    tracing::debug!(%error, "the disk tier is still off");
                }
                Err(error) => self.tell_off(&error.to_string()),
            }
            is_down = true;
            self.status.set(StoreState::Off);
            // The entries would hold memory for the whole outage, and their vectors can be fetched again.
            self.queue.give_up_all();
            tokio::time::sleep(self.settings.off_for).await;
            self.status.set(StoreState::Opening);
        }
    }

    fn tell_off(&self, fault: &str) {
        self.status.set_cause(Some(fault.to_owned()));
        let off_for = self.settings.off_for;
        tracing::warn!(%fault, "the disk tier is off; retrying every {off_for:?}, requests continue without it");
    }

    /// Opens the store. Requests use it only after its purges are loaded and entries purged during the outage are
    /// removed.
    async fn open(&mut self, is_down: bool) -> Result<Arc<DiskStore>, OpenError> {
        let (settings, status, purges) = (self.settings.clone(), Arc::clone(&self.status), Arc::clone(&self.purges));
        let opened = spawn_blocking(move || {
            let store = DiskStore::open_within(&settings.path, settings.bounds)?;
            restore_purges(&store, &status, &purges, is_down)
                .map_err(|fault| OpenError::Unusable { path: settings.path, fault })?;
            Ok(Arc::new(store))
        });
        let store = opened.await.expect("opening must not panic")?;
        // Faults of the previous store must not switch off the new one.
        while self.faults.try_recv().is_ok() {}
        self.status.set(StoreState::Open(Arc::clone(&store)));
        Ok(store)
    }

    /// Writes queued entries until an operation fails, and returns the fault. If a write hangs after another
    /// operation has failed, this function does not wait for it. That write keeps the folder locked until it ends, so
    /// no second store opens.
    async fn write_behind(&mut self, store: Arc<DiskStore>) -> String {
        loop {
            // `next` takes a batch only when it returns, so no entries are lost if another branch is first.
            let batch = tokio::select! {
                fault = self.faults.recv() => return fault.unwrap_or_default(),
                batch = self.queue.next() => batch,
                () = self.purges.sent() => match self.note_sent(&store).await {
                    Ok(()) => continue,
                    Err(fault) => return fault.to_string(),
                },
            };
            let (store, queue) = (Arc::clone(&store), Arc::clone(&self.queue));
            let writing = spawn_blocking(move || (write(&store, &queue, &batch), batch));
            // If another operation fails meanwhile, `run` gives up this batch together with the queue.
            let (written, batch) = tokio::select! {
                fault = self.faults.recv() => return fault.unwrap_or_default(),
                done = writing => done.expect("writing must not panic"),
            };
            match written {
                Ok(()) => self.queue.done(&batch),
                Err(fault) => {
                    self.queue.give_up(&batch);
                    return fault.to_string();
                }
            }
        }
    }
}

impl DiskWorker {
    /// Records on disk that purges were sent. If this comes too late, a restart repeats a purge needlessly.
    async fn note_sent(&self, store: &Arc<DiskStore>) -> std::io::Result<()> {
        let (store, status, purges) = (Arc::clone(store), Arc::clone(&self.status), Arc::clone(&self.purges));
        let noted = spawn_blocking(move || store.note_purges(&purges).map(|noted| status.has_noted(noted)));
        noted.await.expect("noting must not panic")
    }
}

/// Writes the entries of a batch that were neither removed nor cleared meanwhile. The store takes the entries under the
/// lock that its clearing and erasing need, and they leave the queue first. So no such entry is in the store afterwards.
fn write(store: &DiskStore, queue: &WriteQueue, batch: &WriteBatch) -> std::io::Result<()> {
    store.append(queue.wanted(batch))
}

/// Applies the purges that are saved in the folder, removes entries that were purged during an outage, and saves
/// purges that happened since. Requests must not read before that.
fn restore_purges(
    store: &DiskStore,
    status: &StoreStatus,
    purges: &PurgeRegistry,
    is_down: bool,
) -> std::io::Result<()> {
    if is_down {
        // With less free space than this the next writes would fail and close the tier again.
        store.probe(MIN_FREE_BYTES)?;
    }
    let noted = store.purges()?;
    status.take_over(&noted, purges);
    status.clear_if_requested(store)?;
    // The file is written only if this process knows more than the folder.
    if purges.to_save() == noted { Ok(()) } else { store.note_purges(purges).map(|noted| status.has_noted(noted)) }
}

fn tell_open(store: &DiskStore, was_down: bool) {
    let entries = store.stats().entries;
    let path = store.path().display();
    if was_down {
        tracing::info!(entries, "the disk tier is back: {path}");
    } else {
        tracing::info!(entries, "the disk tier is open: {path}");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc as threads;

    use bytes::Bytes;
    use tokio::task::yield_now;

    use super::*;
    use crate::cache::AtRest;
    use crate::cache::disk::tests::Folder;
    use crate::key::{KeyBuilder, Tag};
    use crate::process::tasks::Tasks;

    const TIMEOUT: Duration = Duration::from_secs(10);

    async fn becomes(condition: impl Fn() -> bool) {
        // Real time, because paused time stands still while this task runs.
        let begun = std::time::Instant::now();
        while !condition() {
            assert!(begun.elapsed() < TIMEOUT, "the condition is not met in time");
            yield_now().await;
        }
    }

    fn start(folder: &Folder, tasks: &Tasks, off_for: Duration) -> (Arc<StoreStatus>, Arc<WriteQueue>) {
        let (status, faults) = StoreStatus::new();
        let (status, queue) = (Arc::new(status), Arc::new(WriteQueue::new(1 << 20, BATCH)));
        let bounds = DiskBounds { max_bytes: 16 << 20, max_entries: u64::MAX };
        let settings = DiskSettings { path: folder.path().to_owned(), bounds, queue_bytes: 1 << 20, off_for };
        let (purges, to_write) = (Arc::default(), Arc::clone(&queue));
        tasks.spawn_until_stop(
            DiskWorker { settings, status: Arc::clone(&status), queue: to_write, purges, faults }.run(),
        );
        (status, queue)
    }

    #[tokio::test]
    async fn a_fault_of_a_previous_store_does_not_turn_off_the_reopened_one() {
        let (folder, tasks, off_for) = (Folder::new(), Tasks::new(), Duration::from_secs(1));
        let (status, _queue) = start(&folder, &tasks, off_for);
        let StoreState::Open(_) = status.known().await else { panic!("it must open") };
        let begun = tokio::time::Instant::now();
        status.fail(&"the first of two reads");
        tokio::time::sleep(off_for / 3).await;
        status.fail(&"the second, which took longer");
        becomes(|| status.store().is_some()).await;
        assert!(begun.elapsed() < off_for + off_for * 2 / 3, "it was off twice: {:?}", begun.elapsed());
        assert_eq!(status.cause(), None);
        tasks.stop();
        tasks.join(TIMEOUT).await;
    }

    #[tokio::test]
    async fn a_disk_that_hangs_during_a_write_is_turned_off_and_recovers() {
        let (folder, tasks) = (Folder::new(), Tasks::new());
        let (status, queue) = start(&folder, &tasks, Duration::from_millis(1));
        let StoreState::Open(store) = status.known().await else { panic!("it must open") };
        let ((holds, held), (let_go, until)) = (threads::channel(), threads::channel::<()>());
        let hung = Arc::clone(&store);
        let hanging = spawn_blocking(move || {
            let _appender = hung.lock_appender();
            holds.send(()).expect("somebody waits for it");
            until.recv().ok();
        });
        held.recv().expect("it is held");
        let holders = Arc::strong_count(&store);
        let key = KeyBuilder::new(None).finish();
        queue.push(key, AtRest { bytes: Bytes::from_static(b"x"), until_ms: 1 });
        becomes(|| Arc::strong_count(&store) > holders).await;
        status.fail(&"reading takes too long");
        assert!(status.store().is_none(), "nobody asks it any more");
        becomes(|| queue.is_empty()).await;
        assert_eq!(queue.dropped(), 1, "what cannot be written is given up");
        drop((store, let_go));
        hanging.await.expect("it does not panic");
        becomes(|| status.store().is_some()).await;
        tasks.stop();
        tasks.join(TIMEOUT).await;
    }

    #[tokio::test(start_paused = true)]
    async fn entries_are_gathered_for_the_linger_time_and_then_written() {
        let (folder, tasks) = (Folder::new(), Tasks::new());
        let (status, queue) = start(&folder, &tasks, Duration::from_secs(1));
        let StoreState::Open(store) = status.known().await else { panic!("it must open") };
        let keys = [1, 2].map(|n| KeyBuilder::new(None).part(Tag::Text, &[n]).finish());
        for key in keys {
            queue.push(key, AtRest { bytes: Bytes::from_static(b"x"), until_ms: 1 });
            yield_now().await;
            assert!(queue.holds(&key) && !store.holds(&key), "it waits for further entries");
            tokio::time::advance(BATCH.linger / 2).await;
        }
        // The timer counts whole milliseconds.
        tokio::time::advance(Duration::from_millis(1)).await;
        becomes(|| queue.is_empty()).await;
        assert!(keys.iter().all(|key| store.holds(key)));
        queue.push(keys[0], AtRest { bytes: Bytes::from_static(b"y"), until_ms: 1 });
        let begun = tokio::time::Instant::now();
        queue.drained().await;
        assert!(begun.elapsed() < BATCH.linger, "somebody waits for it: {:?}", begun.elapsed());
        tasks.stop();
        tasks.join(TIMEOUT).await;
    }

    #[tokio::test]
    async fn entries_cleared_before_their_write_are_not_written() {
        let (folder, queue) = (Folder::new(), WriteQueue::new(1 << 20, BATCH));
        let store = folder.open();
        let keys = [1, 2].map(|n| KeyBuilder::new(None).part(Tag::Text, &[n]).finish());
        let entry = || AtRest { bytes: Bytes::from_static(b"x"), until_ms: 1 };
        queue.push(keys[0], entry());
        let batch = queue.next().await;
        queue.clear();
        write(&store, &queue, &batch).expect("it can be written");
        assert!(!store.holds(&keys[0]));
        queue.push(keys[0], entry());
        write(&store, &queue, &batch).expect("it can be written");
        assert!(!store.holds(&keys[0]), "the queue holds another entry of this key");
        write(&store, &queue, &queue.next().await).expect("it can be written");
        assert!(store.holds(&keys[0]));
        queue.push(keys[1], entry());
        write(&store, &queue, &queue.next().await).expect("it can be written");
        assert!(store.holds(&keys[1]));
    }

    #[tokio::test]
    async fn entries_forgotten_before_their_write_are_not_written() {
        let (folder, queue) = (Folder::new(), WriteQueue::new(1 << 20, BATCH));
        let store = folder.open();
        let keys = [1, 2].map(|n| KeyBuilder::new(None).part(Tag::Text, &[n]).finish());
        let entry = || AtRest { bytes: Bytes::from_static(b"x"), until_ms: 1 };
        for key in keys {
            queue.push(key, entry());
        }
        let batch = queue.next().await;
        queue.remove(&keys[..1]);
        assert_eq!(store.erase(&keys[..1]).found, 0);
        queue.push(keys[0], entry());
        write(&store, &queue, &batch).expect("it can be written");
        assert_eq!(keys.map(|key| store.holds(&key)), [false, true], "its neighbour is written");
        write(&store, &queue, &queue.next().await).expect("it can be written");
        assert!(store.holds(&keys[0]), "a later put is written");
    }
}
