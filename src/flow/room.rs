//! Memory budget for the vectors of requests under way. A request reserves memory before it queries the lower tiers or
//! fetches. So requests that wait for their last vectors never exceed the budget together.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::governor::Governor;
use crate::key::Key;
use crate::packed::Packed;
use crate::upstream::FairOrder;
use crate::vector::COMPONENT_BYTES;

/// Size of one unit of the budget; a semaphore counts in `u32`.
const UNIT_BYTES: usize = 1024;

/// Memory of a vector in addition to its components: its record, its key and its places in the request.
const VECTOR_BYTES: usize = 256;

/// Vectors in memory up to this size are not counted, because their answer is small.
const UNCOUNTED_BYTES: usize = 64 * 1024;

/// Denominator of the fraction of the budget from which on a request counts as large.
const LARGE_SHARE: usize = 16;

/// Denominator of the fraction of the budget after which the governor is asked to check memory.
const LOOK_SHARE: usize = 4;

/// Factor for vectors together with the answers that bring them. A base64 answer takes a third more than its vectors,
/// and one of decimal numbers about three times as much. Not all answers arrive at once.
const WITH_ANSWERS: usize = 2;

/// Memory budget of all requests together.
#[derive(Debug)]
pub struct VectorRoom {
    total_units: usize,
    free: Arc<Semaphore>,
    /// Fair order of the waiting callers.
    order: FairOrder,
    governor: OnceLock<Weak<Governor>>,
    /// Units taken since the governor was last asked to check.
    unseen_units: AtomicUsize,
}

/// Reason for a refused reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// The request needs more than the whole budget.
    Never,
    /// Other requests held the memory until the deadline.
    InTime,
}

/// Memory reserved for a request. It is released when its last owner drops it. Used by `Arc`.
#[derive(Debug, Default)]
pub(super) struct Held(Mutex<Option<OwnedSemaphorePermit>>);

impl VectorRoom {
    /// Creates a budget of `bytes` for vectors.
    pub fn new(bytes: u64) -> Self {
        let units = usize::try_from(bytes).unwrap_or(usize::MAX) / UNIT_BYTES;
        let total_units = units.clamp(1, u32::MAX as usize).min(Semaphore::MAX_PERMITS);
        Self {
            total_units,
            free: Arc::new(Semaphore::new(total_units)),
            order: FairOrder::default(),
            governor: OnceLock::new(),
            unseen_units: AtomicUsize::new(0),
        }
    }

    /// Registers the governor. From now on, caches are shrunk for the vectors of large requests.
    pub fn ask_for_room(&self, governor: &Arc<Governor>) {
        // There is one governor, so a second call changes nothing.
        let _ = self.governor.set(Arc::downgrade(governor));
    }

    /// Returns the reserved memory, in bytes.
    pub fn held_bytes(&self) -> usize {
        (self.total_units - self.free.available_permits()) * UNIT_BYTES
    }

    /// Waits, in fair order among callers, for a reservation that covers `wanted`. Vectors that are already in memory
    /// never exceed the budget by themselves.
    pub(super) async fn take(&self, wanted: Wanted, caller: Key, deadline: Instant) -> Result<Held, NoRoom> {
        let missing_units = wanted.missing_bytes().div_ceil(UNIT_BYTES);
        if missing_units > self.total_units {
            return Err(NoRoom::Never);
        }
        if missing_units == 0 && wanted.at_hand_bytes <= UNCOUNTED_BYTES {
            return Ok(Held::default());
        }
        let units = (missing_units + wanted.at_hand_bytes / UNIT_BYTES).min(self.total_units);
        let units = u32::try_from(units).expect("the total fits");
        let taken = self.order.wait(caller, Arc::clone(&self.free).acquire_many_owned(units));
        match timeout_at(deadline, taken).await {
            Ok(permit) => {
                self.relieve(missing_units).await;
                Ok(Held(Mutex::new(Some(permit.expect("the semaphore must stay open")))))
            }
            Err(_) => Err(NoRoom::InTime),
        }
    }

    /// Shrinks caches for a large request. Asks the governor for an early check after many small ones, because their
    /// answers arrive faster than its regular checks.
    async fn relieve(&self, units: usize) {
        let unseen = self.unseen_units.fetch_add(units, Ordering::Relaxed) + units;
        let is_large = units >= self.total_units / LARGE_SHARE;
        if !is_large && unseen < self.total_units / LOOK_SHARE {
            return;
        }
        self.unseen_units.store(0, Ordering::Relaxed);
        let Some(governor) = self.governor.get().and_then(Weak::upgrade) else { return };
        if is_large {
            let bytes = (units * UNIT_BYTES * WITH_ANSWERS) as u64;
            // If the task fails, the governor acts at its next regular check.
            let _ = tokio::task::spawn_blocking(move || governor.relieve(bytes)).await;
        } else {
            governor.look_soon();
        }
    }

    /// Adds `bytes` to a reservation, if the budget allows it. This is for vectors that are larger than expected.
    pub(super) fn take_more(&self, held: &Held, bytes: usize) -> bool {
        let Ok(units) = u32::try_from(bytes.div_ceil(UNIT_BYTES)) else { return false };
        let Ok(more) = Arc::clone(&self.free).try_acquire_many_owned(units) else { return false };
        let mut permit = held.lock();
        match &mut *permit {
            Some(permit) => permit.merge(more),
            None => *permit = Some(more),
        }
        true
    }
}

impl Held {
    /// Returns true if the reservation covers this number of vectors of this dimension.
    pub(super) fn covers(&self, vectors: usize, dimension: usize) -> bool {
        let wanted = Wanted { missing: vectors, dimension, at_hand_bytes: 0 };
        wanted.missing_bytes() <= self.lock().as_ref().map_or(0, OwnedSemaphorePermit::num_permits) * UNIT_BYTES
    }

    fn lock(&self) -> MutexGuard<'_, Option<OwnedSemaphorePermit>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Vectors of a request that need memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Number of vectors that are not in memory.
    pub(super) missing: usize,
    /// Their dimension, as far as it is known.
    pub(super) dimension: usize,
    /// Size of the vectors that are in memory, in bytes.
    pub(super) at_hand_bytes: usize,
}

impl Wanted {
    fn missing_bytes(self) -> usize {
        self.missing.saturating_mul(self.dimension * COMPONENT_BYTES + VECTOR_BYTES)
    }
}

/// Returns the size of a vector in memory, in bytes.
pub(super) fn bytes_of(vector: &Packed) -> usize {
    vector.payload().len() + VECTOR_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLER: Key = Key::from_bytes([1; 32]);

    fn wanted(missing: usize, at_hand_bytes: usize) -> Wanted {
        Wanted { missing, dimension: 192, at_hand_bytes }
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_fits_is_told_at_once_and_what_does_not_fit_now_waits_for_its_turn() {
        let room = VectorRoom::new(10 * 1024);
        let soon = Instant::now() + std::time::Duration::from_secs(1);
        assert_eq!(room.take(wanted(11, 0), CALLER, soon).await.err(), Some(NoRoom::Never));
        let held = room.take(wanted(6, 0), CALLER, soon).await.expect("there is room");
        assert_eq!(room.held_bytes(), 6 * 1024);
        assert!(held.covers(6, 192) && !held.covers(7, 192) && !held.covers(6, 193));
        assert_eq!(room.take(wanted(5, 0), CALLER, soon).await.err(), Some(NoRoom::InTime));
        assert!(room.take_more(&held, 3 * 1024) && !room.take_more(&held, 2 * 1024));
        assert!(held.covers(9, 192) && room.take_more(&Held::default(), 1024));
        drop(held);
        assert!(room.take(wanted(10, 0), CALLER, soon).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn vectors_in_memory_are_never_too_many_and_few_of_them_are_not_counted() {
        let room = VectorRoom::new(100 * 1024);
        let soon = Instant::now() + std::time::Duration::from_secs(1);
        let all = room.take(wanted(0, 1 << 30), CALLER, soon).await.expect("they are in memory");
        assert_eq!(room.held_bytes(), 100 * 1024);
        assert!(room.take(wanted(0, UNCOUNTED_BYTES), CALLER, soon).await.is_ok());
        assert_eq!(room.take(wanted(1, 0), CALLER, soon).await.err(), Some(NoRoom::InTime));
        drop(all);
        assert!(room.take(wanted(1, 0), CALLER, soon).await.is_ok());
    }
}
