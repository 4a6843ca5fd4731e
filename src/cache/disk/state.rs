//! Status of the disk tier: opening, open or off.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, watch};

use super::DiskStore;
use crate::cache::Durability;
use crate::cache::purges::{PurgeRegistry, SavedPurges, UnsentPurges};

/// State of the tier.
#[derive(Clone, Debug)]
pub(super) enum StoreState {
    /// The store is being opened.
    Opening,
    /// The store works.
    Open(Arc<DiskStore>),
    /// The store failed, or another process has locked the folder.
    Off,
}

/// The current state, and the channel that reports faults.
#[derive(Debug)]
pub(super) struct StoreStatus {
    state: watch::Sender<StoreState>,
    faults: mpsc::Sender<String>,
    /// Reason why the store cannot be used, from a failure until the store is open again.
    cause: Mutex<Option<String>>,
    /// True if a purge came while the store was not open. Its entries may be purged, so they are removed when it
    /// opens.
    must_clear: AtomicBool,
    /// Unsent purges that this process recorded last; `None` if it has not recorded any.
    saved_unsent: Mutex<Option<UnsentPurges>>,
}

impl StoreStatus {
    /// Creates the status of a tier that is opening, and the receiver of its faults.
    pub(super) fn new() -> (Self, mpsc::Receiver<String>) {
        let (faults, told) = mpsc::channel(1);
        let (state, must_clear) = (watch::Sender::new(StoreState::Opening), AtomicBool::new(false));
        (Self { state, faults, cause: Mutex::default(), must_clear, saved_unsent: Mutex::default() }, told)
    }

    pub(super) fn set(&self, state: StoreState) {
        if matches!(state, StoreState::Open(_)) {
            self.set_cause(None);
        }
        self.state.send_replace(state);
    }

    /// Returns the store if it is open.
    pub(super) fn store(&self) -> Option<Arc<DiskStore>> {
        match &*self.state.borrow() {
            StoreState::Open(store) => Some(Arc::clone(store)),
            StoreState::Opening | StoreState::Off => None,
        }
    }

    /// Returns the reason why the store cannot be used.
    pub(super) fn cause(&self) -> Option<String> {
        self.cause.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_cause(&self, cause: Option<String>) {
        *self.cause.lock().unwrap_or_else(PoisonError::into_inner) = cause;
    }

    pub(super) fn is_off(&self) -> bool {
        matches!(*self.state.borrow(), StoreState::Off)
    }

    /// Waits until the state is known. Returns `Off` if the tier was told to stop.
    pub(super) async fn known(&self) -> StoreState {
        let mut state = self.state.subscribe();
        let known = state.wait_for(|state| !matches!(state, StoreState::Opening)).await;
        known.map_or(StoreState::Off, |state| state.clone())
    }

    /// Switches the tier off and reports a fault. This happens at once, because the writer may hang on the same disk:
    /// otherwise each further request would wait for that disk and leave a blocked thread behind.
    pub(super) fn fail(&self, fault: &impl ToString) {
        self.set_cause(Some(fault.to_string()));
        self.state.send_if_modified(|state| {
            // While no store is open, a late fault concerns the previous one and must not change the state.
            let was_open = matches!(state, StoreState::Open(_));
            if was_open {
                *state = StoreState::Off;
            }
            was_open
        });
        // The channel holds one fault, and further ones have the same cause.
        self.faults.try_send(fault.to_string()).ok();
    }

    /// Merges the counts and the unsent purges recorded in the folder. Unsent purges that this process recorded itself
    /// are skipped, because they may have been sent since.
    pub(super) fn take_over(&self, noted: &SavedPurges, purges: &PurgeRegistry) {
        purges.learn_all(&noted.counts, &noted.forgotten);
        let mut own = self.saved_unsent.lock().unwrap_or_else(PoisonError::into_inner);
        if own.as_ref() != Some(&noted.unsent) {
            purges.add_saved(&noted.unsent);
            // From now on they belong to this process.
            *own = Some(noted.unsent.clone());
        }
    }

    /// Returns true if unsent purges are recorded in the folder.
    pub(super) fn has_saved_unsent(&self) -> bool {
        let noted = self.saved_unsent.lock().unwrap_or_else(PoisonError::into_inner);
        noted.as_ref().is_some_and(|unsent| !unsent.is_empty())
    }

    /// Notes that this process has recorded everything in `noted`.
    pub(super) fn has_noted(&self, noted: SavedPurges) {
        *self.saved_unsent.lock().unwrap_or_else(PoisonError::into_inner) = Some(noted.unsent);
    }

    /// Requests that the next [`StoreStatus::clear_if_requested`] clear the store, because its entries may be purged.
    pub(super) fn request_clear(&self) {
        self.must_clear.store(true, Ordering::SeqCst);
    }

    /// Clears the store if [`StoreStatus::request_clear`] requested it.
    pub(super) fn clear_if_requested(&self, store: &DiskStore) -> std::io::Result<()> {
        // The request is taken before the clearing, so one that comes meanwhile is kept for the next time.
        if self.must_clear.swap(false, Ordering::SeqCst) {
            store.clear().inspect_err(|_| self.request_clear())?;
        }
        Ok(())
    }
}

/// Logs that a purge could not be recorded, and returns its durability.
pub(super) fn unnoted(fault: &str) -> Durability {
    tracing::warn!(fault, "cannot record a purge on disk; after a restart, purged entries may be served again");
    Durability::Pending
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsent_purges_saved_by_this_process_are_not_inherited_twice() {
        let (status, _faults) = StoreStatus::new();
        let purges = PurgeRegistry::default();
        purges.add_unsent("a");
        status.has_noted(purges.to_save());
        status.take_over(&purges.to_save(), &purges);
        assert_eq!(purges.unsent(), UnsentPurges::from([("a".to_owned(), 1)]));
        let left = SavedPurges { unsent: UnsentPurges::from([("a".to_owned(), 2)]), ..SavedPurges::default() };
        status.take_over(&left, &purges);
        assert_eq!(purges.unsent(), UnsentPurges::from([("a".to_owned(), 3)]), "those of another process are");
    }
}
