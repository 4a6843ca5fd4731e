//! Forgotten keys whose entries could not be overwritten. They are never served, and a task tries again.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::state::StoreStatus;
use crate::key::Key;
use crate::process::tasks::Tasks;

/// Keys whose entries are to be overwritten. One task runs as long as there are any.
#[derive(Debug, Default)]
pub(super) struct UnerasedKeys(Mutex<HashSet<Key>>);

impl UnerasedKeys {
    /// Adds keys. They are tried again in this interval, until it succeeds or the tier is closed.
    pub(super) fn add(self: &Arc<Self>, keys: &[Key], (tasks, every): (&Tasks, Duration), status: &Arc<StoreStatus>) {
        let mut all = self.lock();
        let was_empty = all.is_empty();
        all.extend(keys);
        drop(all);
        if was_empty {
            tasks.spawn_until_stop(Arc::clone(self).run(Arc::clone(status), every));
        }
    }

    async fn run(self: Arc<Self>, status: Arc<StoreStatus>, every: Duration) {
        loop {
            sleep(every).await;
            // The tier may have been off meanwhile, and have another store by now.
            let Some(store) = status.store() else { continue };
            let keys: Vec<Key> = self.lock().iter().copied().collect();
            let erasing = spawn_blocking(move || (store.erase(&keys).fault, keys));
            match erasing.await {
                Ok((None, keys)) => {
                    tracing::info!(keys = keys.len(), "forgotten entries on disk are overwritten by now");
                    if self.remove(&keys) {
                        return;
                    }
                }
                Ok((Some(fault), _)) => tracing::debug!(%fault, "cannot overwrite forgotten entries on disk yet"),
                Err(panicked) => {
                    status.fail(&panicked);
                    // A later failure starts another task.
                    self.lock().clear();
                    return;
                }
            }
        }
    }

    /// Removes keys, and returns true if none is left.
    fn remove(&self, keys: &[Key]) -> bool {
        let mut all = self.lock();
        for key in keys {
            all.remove(key);
        }
        all.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Key>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use bytes::Bytes;
    use tokio::time::timeout;

    use super::*;
    use crate::cache::disk::segment::Segment;
    use crate::cache::disk::tests::Folder;
    use crate::cache::disk::{DiskBounds, DiskParts, DiskSettings, DiskTier};
    use crate::cache::purges::PurgeSubject;
    use crate::cache::{AtRest, Durability, LowerTier as _};
    use crate::observe::metrics::Metrics;
    use crate::process::clock::Clock;

    async fn tier(folder: &Folder) -> DiskTier {
        let bounds = DiskBounds { max_bytes: 16 << 20, max_entries: u64::MAX };
        let (path, off_for) = (folder.path().to_owned(), Duration::from_millis(20));
        let settings = DiskSettings { path, bounds, queue_bytes: 1 << 20, off_for };
        let parts = DiskParts { clock: Clock::manual(0), metrics: Metrics::new("test"), purges: Arc::default() };
        DiskTier::start(settings, parts).await
    }

    #[tokio::test]
    async fn a_failed_erasure_is_repeated_until_it_succeeds() {
        let folder = Folder::new();
        let tier = tier(&folder).await;
        let store = tier.status.store().expect("it is open");
        let (key, value) = (Key::from_bytes([1; 32]), Bytes::from_static(b"a forgotten value"));
        store.put(key, &AtRest { bytes: value.clone(), until_ms: 1 }).expect("it must be written");
        let (unreadable, copy) = (folder.path().join("unreadable"), folder.path().join("copy"));
        std::fs::copy(&folder.segments()[0], &copy).expect("it can be copied");
        let holds_value = || {
            let bytes = std::fs::read(&copy).expect("it can be read");
            bytes.windows(value.len()).any(|part| part == value)
        };
        // A file that is open for writing only.
        store.add_segment(Segment::over(File::create(unreadable).expect("it can be created")));
        let purges = Arc::clone(&tier.parts.purges);
        purges.forgotten().raise(&[key], 1);
        let subject = PurgeSubject::of_inputs(&[key]);
        assert_eq!(tier.purged(&purges, &subject).await, (1, Durability::Unerased));
        let readable = File::options().read(true).write(true).open(&copy).expect("it can be opened");
        // It takes the place of the other one.
        store.add_segment(Segment::over(readable));
        assert!(holds_value(), "it was not there at the first time");
        let erased = async {
            while holds_value() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(10), erased).await.expect("it must be tried again");
    }
}
