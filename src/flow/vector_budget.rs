//! Memory budget for the vectors of requests under way. A request reserves memory before it queries the lower tiers or
//! fetches. So requests that wait for their last vectors never exceed the budget together.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::key::Key;
use crate::process::governor::Governor;
use crate::upstream::FairOrder;
use crate::vector::COMPONENT_BYTES;
use crate::vector::packed::Packed;

/// Size of one unit of the budget; a semaphore counts in `u32`.
const UNIT_BYTES: usize = 1024;

/// Memory of a vector in addition to its components: its record, its key and its places in the request.
pub(super) const VECTOR_BYTES: usize = 256;

/// Largest reservation of a small request. Vectors in memory up to this size are not counted at all.
const SMALL_BYTES: usize = 64 * 1024;

/// Denominator of the fraction of the budget that only small requests may use, so that large ones do not delay them.
const SMALL_SHARE: usize = 8;

/// Denominator of the fraction of the budget from which on caches are shrunk for a request.
const LARGE_SHARE: usize = 16;

/// Denominator of the fraction of the budget after which the governor is asked to check memory.
const LOOK_SHARE: usize = 4;

/// Factor for vectors together with the answers that bring them. A base64 answer takes a third more than its vectors,
/// and one of decimal numbers about three times as much. Not all answers arrive at once.
const WITH_ANSWERS: usize = 3;

/// Maximum wait for a reservation. A request that waits longer is better off without the cache.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// Memory budget of all requests together.
#[derive(Debug)]
pub struct VectorBudget {
    small: BudgetPool,
    large: BudgetPool,
    governor: OnceLock<Weak<Governor>>,
    /// Units taken since the governor was last asked to check.
    unseen_units: AtomicUsize,
}

/// A part of the budget.
#[derive(Debug)]
struct BudgetPool {
    units: usize,
    free: Arc<Semaphore>,
    /// Fair order of the waiting callers.
    order: FairOrder,
}

/// The request that reserves memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct BudgetClaim {
    /// Its caller.
    pub(super) caller: Key,
    /// Its deadline.
    pub(super) deadline: Instant,
    /// True if the upstream has accepted its credential. Caches shrink early for such a caller. For another one they
    /// shrink only where the process would exceed its limit, so that it cannot empty them.
    pub(super) is_known: bool,
}

/// Memory reserved for a request. It is released when its last owner drops it. Used by `Arc`.
#[derive(Debug, Default)]
pub(super) struct VectorReservation {
    #[expect(dead_code, reason = "it is held until the vectors are written")]
    permit: Option<OwnedSemaphorePermit>,
    /// Memory that was added later.
    more: Mutex<Vec<OwnedSemaphorePermit>>,
    missing_bytes: usize,
}

impl BudgetPool {
    fn new(units: usize) -> Self {
        let units = units.clamp(1, u32::MAX as usize).min(Semaphore::MAX_PERMITS);
        Self { units, free: Arc::new(Semaphore::new(units)), order: FairOrder::default() }
    }
}

impl VectorBudget {
    /// Creates a budget of `bytes` for vectors.
    pub fn new(bytes: u64) -> Self {
        let units = usize::try_from(bytes).unwrap_or(usize::MAX) / UNIT_BYTES;
        let small = BudgetPool::new(units / SMALL_SHARE);
        let large = BudgetPool::new(units.saturating_sub(small.units));
        Self { small, large, governor: OnceLock::new(), unseen_units: AtomicUsize::new(0) }
    }

    /// Registers the governor. From now on, caches are shrunk for the vectors of large requests.
    pub fn set_governor(&self, governor: &Arc<Governor>) {
        // There is one governor, so a second call changes nothing.
        let _ = self.governor.set(Arc::downgrade(governor));
    }

    /// Returns the reserved memory, in bytes.
    pub fn held_bytes(&self) -> usize {
        let held = |pool: &BudgetPool| pool.units - pool.free.available_permits();
        (held(&self.small) + held(&self.large)) * UNIT_BYTES
    }

    /// Reserves memory for `wanted`. Waits for it in fair order among callers, but never for vectors that are already
    /// in memory. Returns nothing if the request is too large, or if others hold the memory for too long.
    pub(super) async fn take(&self, wanted: Wanted, claim: BudgetClaim) -> Option<VectorReservation> {
        let missing_bytes = wanted.missing_bytes();
        let missing_units = missing_bytes.div_ceil(UNIT_BYTES);
        if missing_units == 0 {
            return Some(self.note_at_hand(wanted.at_hand_bytes));
        }
        let pool = if missing_bytes <= SMALL_BYTES { &self.small } else { &self.large };
        // The whole pool is smaller, so waiting cannot help.
        if missing_units > pool.units {
            return None;
        }
        let units = u32::try_from(missing_units).expect("a pool has fewer units than that");
        let until = claim.deadline.min(Instant::now() + MAX_WAIT);
        // The order is per caller, so a caller with many requests does not delay the others.
        let taken = pool.order.wait(claim.caller, Arc::clone(&pool.free).acquire_many_owned(units));
        let permit = timeout_at(until, taken).await.ok()?.expect("the semaphore must stay open");
        // Caches shrink before the vectors arrive. Afterwards the process may already exceed its limit.
        self.announce(missing_units, claim.is_known).await;
        Some(VectorReservation { permit: Some(permit), more: Mutex::default(), missing_bytes })
    }

    /// Counts vectors in memory that a slow client may keep there, as far as the budget allows it.
    fn note_at_hand(&self, bytes: usize) -> VectorReservation {
        let units = u32::try_from(bytes / UNIT_BYTES).unwrap_or(u32::MAX);
        // These vectors use memory already, so a wait would save none.
        let try_take = || Arc::clone(&self.large.free).try_acquire_many_owned(units).ok();
        let permit = if bytes <= SMALL_BYTES { None } else { try_take() };
        VectorReservation { permit, more: Mutex::default(), missing_bytes: 0 }
    }

    /// Shrinks caches for a large request. Also asks the governor for early checks, as after many small requests:
    /// their answers arrive faster than its regular checks.
    async fn announce(&self, units: usize, is_known: bool) {
        let unseen = self.unseen_units.fetch_add(units, Ordering::Relaxed) + units;
        let is_large = units >= self.large.units / LARGE_SHARE;
        if !is_large && unseen < self.large.units / LOOK_SHARE {
            return;
        }
        // Two requests may both reset the count, which causes one more check at most.
        self.unseen_units.store(0, Ordering::Relaxed);
        let Some(governor) = self.governor.get().and_then(Weak::upgrade) else { return };
        governor.look_soon();
        if is_large {
            let bytes = (units * UNIT_BYTES * WITH_ANSWERS) as u64;
            // If the task fails, the governor acts at its next regular check.
            let relieve = move || if is_known { governor.relieve(bytes) } else { governor.relieve_to_limit(bytes) };
            let _ = tokio::task::spawn_blocking(relieve).await;
        }
    }

    /// Adds `bytes` to a reservation, if either part of the budget allows it. This is for vectors that are larger than
    /// expected.
    pub(super) fn take_more(&self, held: &VectorReservation, bytes: usize) -> bool {
        let Ok(units) = u32::try_from(bytes.div_ceil(UNIT_BYTES)) else { return false };
        let fits_small = bytes <= SMALL_BYTES;
        // A fetch must not wait for memory here, because its own waiters may hold that memory.
        let mut pools = [&self.large, &self.small].into_iter().take(if fits_small { 2 } else { 1 });
        let Some(more) = pools.find_map(|pool| Arc::clone(&pool.free).try_acquire_many_owned(units).ok()) else {
            return false;
        };
        held.lock().push(more);
        true
    }
}

impl VectorReservation {
    /// Returns the memory that this number of missing vectors of this dimension needs beyond the reservation, in bytes.
    pub(super) fn lacking_bytes(&self, vectors: usize, dimension: usize) -> usize {
        let wanted = Wanted { missing: vectors, dimension, at_hand_bytes: 0 };
        wanted.missing_bytes().saturating_sub(self.missing_bytes)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<OwnedSemaphorePermit>> {
        self.more.lock().unwrap_or_else(PoisonError::into_inner)
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
    use crate::process::governor::{Meter, Shrink};

    /// Seven parts for large requests and one for small ones, in KiB.
    const LARGE: usize = 700;
    const KEY: Key = Key::from_bytes([1; 32]);

    fn budget() -> VectorBudget {
        VectorBudget::new(800 * 1024)
    }

    /// Vectors of one KiB.
    fn wanted(missing: usize, at_hand_bytes: usize) -> Wanted {
        Wanted { missing, dimension: 192, at_hand_bytes }
    }

    fn claim() -> BudgetClaim {
        BudgetClaim { caller: KEY, deadline: Instant::now() + Duration::from_mins(10), is_known: true }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_never_fits_fails_at_once_and_others_wait() {
        let (budget, begun) = (budget(), Instant::now());
        assert!(budget.take(wanted(LARGE + 1, 0), claim()).await.is_none());
        assert_eq!(begun.elapsed(), Duration::ZERO);
        let held = budget.take(wanted(400, 0), claim()).await.expect("it fits");
        assert_eq!(budget.held_bytes(), 400 * 1024);
        assert_eq!([(400, 192), (401, 192), (400, 193)].map(|(n, d)| held.lacking_bytes(n, d)), [0, 1024, 1600]);
        assert!(budget.take(wanted(301, 0), claim()).await.is_none());
        assert_eq!(begun.elapsed(), MAX_WAIT);
        drop(held);
        assert!(budget.take(wanted(LARGE, 0), claim()).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn small_requests_and_vectors_in_memory_do_not_wait_for_large_requests() {
        let (budget, begun) = (budget(), Instant::now());
        let _all = budget.take(wanted(LARGE, 0), claim()).await.expect("it fits");
        let small = budget.take(wanted(64, 0), claim()).await.expect("it has memory of its own");
        assert_eq!(budget.held_bytes(), (LARGE + 64) * 1024);
        for at_hand_bytes in [1, SMALL_BYTES, 1 << 30] {
            assert!(budget.take(wanted(0, at_hand_bytes), claim()).await.is_some());
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
        drop(small);
        assert_eq!(budget.held_bytes(), LARGE * 1024);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reservation_grows_as_far_as_the_budget_allows() {
        let budget = budget();
        let held = budget.take(wanted(400, 0), claim()).await.expect("it fits");
        assert!(budget.take_more(&held, 200 * 1024) && !budget.take_more(&held, 101 * 1024));
        assert!(budget.take_more(&VectorReservation::default(), 1024));
        let small = budget.take(wanted(64, 0), claim()).await.expect("it fits");
        assert!(budget.take_more(&small, 36 * 1024), "from the part for small requests");
        drop(held);
        assert!(budget.take_more(&small, 600 * 1024), "from the part for large ones");
        assert_eq!(budget.held_bytes(), (64 + 36 + 600) * 1024);
        drop(small);
        assert_eq!(budget.held_bytes(), 0);
    }

    /// A process of so many bytes, all of which a cache could let go of.
    #[derive(Default)]
    struct Process {
        bytes: AtomicUsize,
        looks: AtomicUsize,
    }

    impl Meter for Process {
        fn resident_bytes(&self) -> u64 {
            self.looks.fetch_add(1, Ordering::Relaxed);
            self.bytes.load(Ordering::Relaxed) as u64
        }

        fn give_back(&self) {}
    }

    impl Shrink for Process {
        fn name(&self) -> &'static str {
            "cache"
        }

        fn bytes(&self) -> u64 {
            self.bytes.load(Ordering::Relaxed) as u64
        }

        fn shrink(&self, bytes: u64) -> u64 {
            self.bytes.fetch_sub(usize::try_from(bytes).expect("it is small"), Ordering::Relaxed);
            bytes
        }
    }

    /// Returns a budget of 1 MiB in a process with a limit of 100 MB, of which caches may fill 85.
    fn governed(bytes: usize) -> (VectorBudget, Arc<Process>, Arc<Governor>) {
        let process = Arc::new(Process { bytes: AtomicUsize::new(bytes), looks: AtomicUsize::new(0) });
        let (meter, part): (Arc<dyn Meter>, Arc<dyn Shrink>) = (process.clone(), process.clone());
        let governor = Arc::new(Governor::new(meter, 100_000_000, vec![part]));
        let budget = VectorBudget::new(1 << 20);
        budget.set_governor(&governor);
        (budget, process, governor)
    }

    #[tokio::test]
    async fn caches_shrink_for_the_vectors_and_answers_of_a_large_request() {
        let (budget, process, _governor) = governed(84_900_000);
        let _held = budget.take(wanted(65, 0), claim()).await.expect("there is room");
        assert!(process.bytes.load(Ordering::Relaxed) <= 85_000_000 - 65 * UNIT_BYTES * WITH_ANSWERS);
    }

    /// Returns how often the governor looks within a minute, without a regular check after the first.
    async fn looks(process: &Process, governor: Arc<Governor>) -> usize {
        let governing = governor.run(Duration::from_hours(1));
        assert!(tokio::time::timeout(Duration::from_mins(1), governing).await.is_err());
        process.looks.load(Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn the_governor_checks_more_often_after_a_large_request() {
        let (budget, process, governor) = governed(1_000_000);
        let _held = budget.take(wanted(65, 0), claim()).await.expect("there is room");
        let relieving = process.looks.load(Ordering::Relaxed);
        assert_eq!(looks(&process, governor).await - relieving, 1 + 20);
    }

    #[tokio::test(start_paused = true)]
    async fn the_governor_checks_more_often_after_many_small_requests() {
        let (budget, process, governor) = governed(1_000_000);
        for _ in 0..budget.large.units / LOOK_SHARE + 100 {
            drop(budget.take(wanted(1, 0), claim()).await.expect("there is room"));
        }
        let looks = looks(&process, governor).await;
        assert_eq!(looks, 1 + 20, "one on request, and 20 close ones after the last request");
        assert!(budget.unseen_units.load(Ordering::Relaxed) <= 100);
    }
}
