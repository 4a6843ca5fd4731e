//! Whether the store can be used at this moment.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, watch};

use super::DiskStore;
use crate::epochs::{Debts, Epochs, Noted};

/// Where the tier stands.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// It will be known in a moment.
    Opening,
    /// It works.
    Open(Arc<DiskStore>),
    /// It failed, or another process has the folder.
    Off,
}

/// The state, and what changes it.
#[derive(Debug)]
pub(super) struct Switch {
    state: watch::Sender<State>,
    faults: mpsc::Sender<String>,
    /// Why the store cannot be used, from a failure until it is open again.
    cause: Mutex<Option<String>>,
    /// Whether a purge came while the store was not open: what is in it then may be purged, and goes once it is open.
    owes_purge: AtomicBool,
    /// The debts that this process noted last; nothing before it did.
    noted_debts: Mutex<Option<Debts>>,
}

impl Switch {
    /// A tier that is about to open, and where faults are told.
    pub(super) fn new() -> (Self, mpsc::Receiver<String>) {
        let (faults, told) = mpsc::channel(1);
        let (state, owes_purge) = (watch::Sender::new(State::Opening), AtomicBool::new(false));
        (Self { state, faults, cause: Mutex::default(), owes_purge, noted_debts: Mutex::default() }, told)
    }

    pub(super) fn set(&self, state: State) {
        if matches!(state, State::Open(_)) {
            self.set_cause(None);
        }
        self.state.send_replace(state);
    }

    /// The store, if it is open.
    pub(super) fn store(&self) -> Option<Arc<DiskStore>> {
        match &*self.state.borrow() {
            State::Open(store) => Some(Arc::clone(store)),
            State::Opening | State::Off => None,
        }
    }

    /// Why it cannot be used.
    pub(super) fn cause(&self) -> Option<String> {
        self.cause.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_cause(&self, cause: Option<String>) {
        *self.cause.lock().unwrap_or_else(PoisonError::into_inner) = cause;
    }

    pub(super) fn is_off(&self) -> bool {
        matches!(*self.state.borrow(), State::Off)
    }

    /// The state once it is known. Nothing if the tier was told to stop.
    pub(super) async fn known(&self) -> State {
        let mut state = self.state.subscribe();
        let known = state.wait_for(|state| !matches!(state, State::Opening)).await;
        known.map_or(State::Off, |state| state.clone())
    }

    /// Something went wrong: the tier goes off. At once, since whoever writes may hang on the same disk: each request
    /// that still asked would wait for it, and leave a thread behind.
    pub(super) fn fail(&self, fault: &impl ToString) {
        self.set_cause(Some(fault.to_string()));
        self.state.send_if_modified(|state| {
            let was_open = matches!(state, State::Open(_));
            if was_open {
                *state = State::Off;
            }
            was_open
        });
        // One fault is enough, and more of them are of the same time.
        self.faults.try_send(fault.to_string()).ok();
    }

    /// Takes in what is noted in the folder: purges, and debts of whoever noted there before. Those that this process
    /// noted itself are known, and may have been paid meanwhile.
    pub(super) fn take_over(&self, noted: &Noted, epochs: &Epochs) {
        epochs.learn(&noted.counts);
        let mut own = self.noted_debts.lock().unwrap_or_else(PoisonError::into_inner);
        if own.as_ref() != Some(&noted.debts) {
            epochs.inherit(&noted.debts);
            // From now on these are this process's own.
            *own = Some(noted.debts.clone());
        }
    }

    /// Whether debts are noted in the folder.
    pub(super) fn owes_anything(&self) -> bool {
        let noted = self.noted_debts.lock().unwrap_or_else(PoisonError::into_inner);
        noted.as_ref().is_some_and(|debts| !debts.is_empty())
    }

    /// This process noted all that there was.
    pub(super) fn has_noted(&self, noted: Noted) {
        *self.noted_debts.lock().unwrap_or_else(PoisonError::into_inner) = Some(noted.debts);
    }

    /// What is in the store may be purged.
    pub(super) fn owe_purge(&self) {
        self.owes_purge.store(true, Ordering::SeqCst);
    }

    /// Empties the store if that is owed.
    pub(super) fn pay_purge(&self, store: &DiskStore) -> std::io::Result<()> {
        if self.owes_purge.swap(false, Ordering::SeqCst) {
            store.clear().inspect_err(|_| self.owe_purge())?;
        }
        Ok(())
    }
}
