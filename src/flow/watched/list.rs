//! The watched spaces.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::reference::SpaceReference;
use crate::key::Key;
use crate::learned::SpaceState;
use crate::upstream::Lane;

/// Maximum number of watched spaces. It bounds the cost of the checks and the series of the metrics.
pub(in crate::flow) const MAX_SPACES: usize = 64;

/// A space without requests for this long makes room for another one.
const IDLE_MS: u64 = 24 * 60 * 60 * 1_000;

/// Spaces whose vectors are checked for changes.
#[derive(Default)]
pub struct Watch {
    spaces: Mutex<Vec<Watched>>,
    /// Wakes the task when a space arrives.
    arrival: Notify,
}

/// One watched space.
pub(in crate::flow) struct Watched {
    /// Key of the space.
    pub(in crate::flow) space: Key,
    pub(in crate::flow) space_state: Arc<SpaceState>,
    /// Lane of vecho's own calls.
    pub(in crate::flow) lane: Lane,
    /// The callers' name of the model; empty if the path names it.
    pub(in crate::flow) asked_model: Arc<str>,
    pub(in crate::flow) reference: SpaceReference,
    /// Difference that the last check found.
    pub(in crate::flow) distance: f64,
    /// True if the log has reported the present change.
    pub(in crate::flow) is_told: bool,
    /// Time at which the reference was last confirmed.
    pub(in crate::flow) confirmed_ms: u64,
    /// Time of the next check.
    pub(in crate::flow) due_ms: u64,
    /// Time at which the space was last seen in use.
    used_ms: u64,
}

/// A space in use, as a request shows it.
pub(in crate::flow) struct SpaceInUse {
    pub(in crate::flow) space: Key,
    pub(in crate::flow) space_state: Arc<SpaceState>,
    pub(in crate::flow) asked_model: Arc<str>,
    pub(in crate::flow) now_ms: u64,
}

impl Watch {
    /// Adds a space, or notes that it is still in use. `lane` makes the lane of its checks. Returns false if there is
    /// no room.
    pub(in crate::flow) fn add(&self, used: SpaceInUse, lane: impl FnOnce() -> Lane) -> bool {
        let SpaceInUse { space, space_state, asked_model, now_ms } = used;
        let mut spaces = self.spaces();
        if let Some(known) = spaces.iter_mut().find(|known| known.space == space) {
            // The state of a space may have been forgotten and made anew.
            (known.used_ms, known.space_state) = (now_ms, space_state);
            return true;
        }
        if spaces.len() >= MAX_SPACES {
            let idle = spaces.iter().position(|known| now_ms.saturating_sub(known.used_ms) > IDLE_MS);
            let Some(idle) = idle else { return false };
            spaces.swap_remove(idle);
        }
        spaces.push(Watched {
            reference: SpaceReference::none(&space),
            lane: lane(),
            space,
            space_state,
            asked_model,
            distance: 0.0,
            is_told: false,
            confirmed_ms: 0,
            due_ms: 0,
            used_ms: now_ms,
        });
        drop(spaces);
        self.arrival.notify_one();
        true
    }

    /// Waits until there is any space.
    pub(in crate::flow) async fn any(&self) {
        while self.spaces().is_empty() {
            self.arrival.notified().await;
        }
    }

    /// Takes a space out of the list whose time has come.
    pub(in crate::flow) fn take_due(&self, now_ms: u64) -> Option<Watched> {
        let mut spaces = self.spaces();
        let due = spaces.iter().position(|watched| watched.due_ms <= now_ms)?;
        Some(spaces.swap_remove(due))
    }

    /// Puts a space back.
    pub(in crate::flow) fn put_back(&self, watched: Watched) {
        // The next request of the space shows that it is still in use.
        watched.space_state.end_watch();
        let mut spaces = self.spaces();
        // A request may have added it in the meantime, if its state was forgotten.
        spaces.retain(|known| known.space != watched.space);
        spaces.push(watched);
    }

    fn spaces(&self) -> MutexGuard<'_, Vec<Watched>> {
        self.spaces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
