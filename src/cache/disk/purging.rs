//! Purges of the disk tier: they are recorded in its folder before they are acknowledged, so they survive the process.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::erase::Erased;
use super::state::{StoreState, unnoted};
use super::{DiskStore, DiskTier, OpenError};
use crate::cache::Durability;
use crate::cache::purges::{PurgeSubject, SavedPurges};
use crate::key::Key;

impl DiskTier {
    /// Records a purge. Returns its durability, and the store if entries may still be in it.
    pub(super) async fn note_purge(&self, subject: &PurgeSubject) -> (Option<Arc<DiskStore>>, Durability) {
        loop {
            if self.status.store().is_none() {
                // The purges recorded in the folder may not be loaded yet, so the count of this purge may be too low.
                self.status.request_clear();
            }
            if let StoreState::Open(store) = self.status.known().await {
                let durability = self.note(Arc::clone(&store), Some(subject)).await;
                return (Some(store), durability);
            }
            match self.wipe().await {
                // The folder is locked. If this process holds the lock by now, the next round can record the purge.
                Err(OpenError::Held(_)) if !self.status.is_off() => {}
                Err(error) => return (None, unnoted(&error.to_string())),
                Ok(()) => return (None, Durability::ForGood),
            }
        }
    }

    /// Records all purges. If that fails, removes all older entries instead and tries again.
    pub(super) async fn note(&self, store: Arc<DiskStore>, subject: Option<&PurgeSubject>) -> Durability {
        let (status, purges) = (Arc::clone(&self.status), Arc::clone(&self.parts.purges));
        let is_everything = matches!(subject, Some(PurgeSubject::Everything));
        let noted = spawn_blocking(move || {
            let noted = store.note_purges(&purges).or_else(|_| {
                status.request_clear();
                status.clear_if_requested(&store)?;
                // Clearing also freed disk space, so a second attempt may succeed.
                store.note_purges(&purges)
            });
            status.has_noted(noted?);
            // After a purge of everything no earlier entry can be served, so the files are removed.
            if is_everything { store.clear().map(drop) } else { status.clear_if_requested(&store) }
        });
        match noted.await.map_err(io::Error::other).flatten() {
            Ok(()) => Durability::ForGood,
            Err(fault) => {
                self.status.request_clear();
                self.status.fail(&fault);
                unnoted(&fault.to_string())
            }
        }
    }

    /// Overwrites the entries of forgotten keys, after their purge was recorded. Returns the number of entries. The purge
    /// is final already, so a disk that is slow or fails costs no other entry. A failure is repeated in the background.
    pub(super) async fn erase(&self, store: Arc<DiskStore>, keys: &Arc<[Key]>, within: Duration) -> (u64, Durability) {
        let to_erase = Arc::clone(keys);
        let erasing = spawn_blocking(move || {
            let erased = store.erase(&to_erase);
            if let Some(fault) = &erased.fault {
                tracing::warn!(
                    %fault,
                    "cannot overwrite all forgotten entries on disk; they are never served, and it is tried again"
                );
            }
            erased
        });
        match timeout(within, erasing).await {
            Ok(Ok(Erased { found, fault: None })) => (found, Durability::ForGood),
            Ok(Ok(Erased { found, fault: Some(_) })) => {
                self.unerased.add(keys, (&self.tasks, self.settings.off_for), &self.status);
                (found, Durability::Unerased)
            }
            Ok(Err(panicked)) => {
                self.status.fail(&panicked);
                (0, Durability::Unerased)
            }
            // The blocking thread goes on.
            Err(_) => {
                tracing::warn!("the disk is slow to overwrite forgotten entries; they are never served");
                (0, Durability::Unerased)
            }
        }
    }

    /// Removes the files of a store that cannot be opened. This mostly succeeds even if opening fails.
    async fn wipe(&self) -> Result<(), OpenError> {
        let (path, status) = (self.settings.path.clone(), Arc::clone(&self.status));
        let purges = Arc::clone(&self.parts.purges);
        let take_over = move |noted: &SavedPurges| {
            status.take_over(noted, &purges);
            let all = purges.to_save();
            status.has_noted(all.clone());
            all
        };
        spawn_blocking(move || DiskStore::wipe(&path, take_over)).await.expect("removing files must not panic")
    }

    pub(super) async fn let_go(&self) -> (u64, Durability) {
        // The queue goes first, so no entry from before is written after the store was cleared.
        self.queue.clear();
        let StoreState::Open(store) = self.status.known().await else {
            self.status.request_clear();
            let wiped = self.wipe().await;
            return (0, if wiped.is_ok() { Durability::ForGood } else { Durability::Pending });
        };
        let cleared = spawn_blocking(move || store.clear()).await.map_err(io::Error::other).flatten();
        cleared.map_or_else(
            |fault| {
                self.status.request_clear();
                self.status.fail(&fault);
                (0, Durability::Pending)
            },
            |entries| (entries, Durability::ForGood),
        )
    }
}
