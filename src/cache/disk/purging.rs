//! Purges of the disk tier: they are recorded in its folder before they are acknowledged, so they survive the process.

use std::io;
use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::state::{StoreState, unnoted};
use super::{DiskStore, DiskTier, OpenError};
use crate::cache::Durability;
use crate::cache::purges::{PurgeSubject, SavedPurges};

impl DiskTier {
    pub(super) async fn note_purge(&self, subject: &PurgeSubject) -> (u64, Durability) {
        loop {
            if self.status.store().is_none() {
                // The purges recorded in the folder may not be loaded yet, so the count of this purge may be too low.
                self.status.request_clear();
            }
            if let StoreState::Open(store) = self.status.known().await {
                return self.note(store, Some(subject.clone())).await;
            }
            match self.wipe().await {
                // The folder is locked. If this process holds the lock by now, the next round can record the purge.
                Err(OpenError::Held(_)) if !self.status.is_off() => {}
                Err(error) => return (0, unnoted(&error.to_string())),
                Ok(()) => return (0, Durability::ForGood),
            }
        }
    }

    /// Records all purges. If that fails, removes all older entries instead and tries again. Then removes the entries
    /// that `subject` covers, as far as they would stay otherwise, and returns the number of forgotten ones.
    pub(super) async fn note(&self, store: Arc<DiskStore>, subject: Option<PurgeSubject>) -> (u64, Durability) {
        let (status, purges) = (Arc::clone(&self.status), Arc::clone(&self.parts.purges));
        let noted = spawn_blocking(move || {
            let noted = store.note_purges(&purges).or_else(|_| {
                status.request_clear();
                status.clear_if_requested(&store)?;
                // Clearing also freed disk space, so a second attempt may succeed.
                store.note_purges(&purges)
            });
            status.has_noted(noted?);
            match subject {
                // After a purge of everything no earlier entry can be served, so the files are removed.
                Some(PurgeSubject::Everything) => store.clear().map(|_| 0),
                Some(PurgeSubject::Inputs(keys)) => {
                    let erased = store.erase(&keys)?;
                    status.clear_if_requested(&store).map(|()| erased)
                }
                Some(PurgeSubject::Model(_)) | None => status.clear_if_requested(&store).map(|()| 0),
            }
        });
        match noted.await.map_err(io::Error::other).flatten() {
            Ok(erased) => (erased, Durability::ForGood),
            Err(fault) => {
                self.status.request_clear();
                self.status.fail(&fault);
                (0, unnoted(&fault.to_string()))
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
