//! Memory budget that all answers under way share. An estimate is reserved before a call. More is reserved while an
//! answer arrives that is larger than estimated.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::fair::FairOrder;
use crate::key::Key;

/// Time that an answer which needs more memory waits for others to end. Its connection is not read meanwhile.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Step in which more memory is reserved, to avoid a reservation for every piece of an answer.
const STEP_BYTES: u64 = 64 * 1024;

/// Maximum number of concurrent decodings. A decoder may hold a window of 16 MiB that is not part of any reservation.
const MAX_DECODINGS: usize = 2;

/// Memory budget of all answers under way. Used by `Arc`.
#[derive(Debug)]
pub(super) struct MemoryBudget {
    total: u64,
    state: Mutex<BudgetState>,
    freed: Notify,
    /// Fair order of the callers that wait to begin.
    order: FairOrder,
    /// Held by the first waiter that has not begun, so small calls cannot starve a large one.
    first_in_line: tokio::sync::Mutex<()>,
    /// Limits the answers that are decoded at the same time.
    decodings: Semaphore,
}

#[derive(Debug)]
struct BudgetState {
    free: u64,
    /// True if an answer that has begun waits for more memory. It precedes calls that have not begun. Only one may
    /// wait: two that hold what the other needs would deadlock.
    answer_waits: bool,
}

impl MemoryBudget {
    pub(super) fn new(total: u64) -> Arc<Self> {
        let state = Mutex::new(BudgetState { free: total, answer_waits: false });
        let decodings = Semaphore::new(MAX_DECODINGS);
        let (order, first_in_line) = (FairOrder::default(), tokio::sync::Mutex::default());
        Arc::new(Self { total, state, freed: Notify::new(), order, first_in_line, decodings })
    }

    /// Returns the whole budget, in bytes.
    pub(super) const fn total(&self) -> u64 {
        self.total
    }

    /// Waits for this many bytes, or for the whole budget if that is less. Waiting callers are served in turn.
    pub(super) async fn take(self: &Arc<Self>, bytes: u64, caller: Key) -> Reservation {
        // More than the total never becomes free, so a larger call would wait forever.
        let bytes = bytes.min(self.total);
        self.order.wait(caller, self.take_in_order(bytes)).await;
        Reservation { budget: Arc::clone(self), caller, estimate: bytes, held: AtomicU64::new(bytes) }
    }

    async fn take_in_order(&self, bytes: u64) {
        let _first = self.first_in_line.lock().await;
        loop {
            // Created before the check, so memory that is freed between the check and the wait ends the wait.
            let freed = self.freed.notified();
            if self.try_take(bytes, |state| !state.answer_waits) {
                return;
            }
            freed.await;
        }
    }

    fn try_take(&self, bytes: u64, may: impl Fn(&BudgetState) -> bool) -> bool {
        let mut state = self.lock();
        let fits = state.free >= bytes && may(&state);
        if fits {
            state.free -= bytes;
        }
        fits
    }

    /// Waits for more memory for a call that holds `held`, as long as others hold memory that may become free.
    async fn take_more(&self, bytes: u64, held: u64) -> bool {
        let Some(_waiting) = WaitGuard::begin(self) else { return false };
        loop {
            let freed = self.freed.notified();
            // A started answer ignores `answer_waits`, which it has set itself.
            if self.try_take(bytes, |_| true) {
                return true;
            }
            // This call holds all memory that is in use, so no memory can become free.
            if self.total - self.lock().free <= held {
                return false;
            }
            freed.await;
        }
    }

    fn give_back(&self, bytes: u64) {
        self.lock().free += bytes;
        self.freed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, BudgetState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Guard of the one answer that waits for more memory.
struct WaitGuard<'a>(&'a MemoryBudget);

impl<'a> WaitGuard<'a> {
    fn begin(budget: &'a MemoryBudget) -> Option<Self> {
        let was_waiting = std::mem::replace(&mut budget.lock().answer_waits, true);
        (!was_waiting).then_some(Self(budget))
    }
}

impl Drop for WaitGuard<'_> {
    fn drop(&mut self) {
        self.0.lock().answer_waits = false;
        // Calls that have not begun may take memory again.
        self.0.freed.notify_waiters();
    }
}

/// Memory reserved for one call. Dropping it releases the memory.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: Arc<MemoryBudget>,
    caller: Key,
    estimate: u64,
    held: AtomicU64,
}

impl Reservation {
    /// Extends the reservation to at least this many bytes. Returns false if the memory is not available.
    pub(super) async fn cover(&self, bytes: u64) -> bool {
        let held = self.held.load(Ordering::Relaxed);
        if bytes <= held {
            return true;
        }
        let more = (bytes - held).next_multiple_of(STEP_BYTES);
        // Free memory is taken at once. Only a wait needs `WaitGuard`, which one answer holds at a time.
        let taken = self.budget.try_take(more, |_| true)
            || timeout(TIMEOUT, self.budget.take_more(more, held)).await.unwrap_or(false);
        if taken {
            self.held.fetch_add(more, Ordering::Relaxed);
        }
        taken
    }

    /// Waits until the answer may be decoded.
    pub(super) async fn decoding_permit(&self) -> SemaphorePermit<'_> {
        self.budget.decodings.acquire().await.expect("the semaphore must stay open")
    }

    /// Releases the whole reservation while no attempt is under way. A call that waits for its permit must hold no
    /// memory, because calls with a permit may wait for that memory.
    pub(super) fn give_up(&self) {
        // The amount becomes zero, so `Drop` does not return it a second time.
        let held = self.held.swap(0, Ordering::Relaxed);
        if held > 0 {
            self.budget.give_back(held);
        }
    }

    /// Reserves the estimated memory of the answer again after [`Reservation::give_up`].
    pub(super) async fn take_again(&self) {
        let taken = self.budget.take(self.estimate, self.caller).await;
        // The amount is moved out of `taken`, so its `Drop` returns nothing.
        self.held.store(taken.held.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.give_back(self.held.load(Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: u64 = 10 * STEP_BYTES;
    const CALLER: Key = Key::from_bytes([1; 32]);

    fn free(budget: &MemoryBudget) -> u64 {
        budget.lock().free / STEP_BYTES
    }

    #[tokio::test(start_paused = true)]
    async fn a_reservation_grows_beyond_its_estimate_and_is_released_whole() {
        let budget = MemoryBudget::new(TEN);
        let reservation = budget.take(4 * STEP_BYTES, CALLER).await;
        assert!(reservation.cover(4 * STEP_BYTES).await);
        assert_eq!(free(&budget), 6);
        assert!(reservation.cover(4 * STEP_BYTES + 1).await);
        assert_eq!(free(&budget), 5);
        reservation.give_up();
        assert_eq!(free(&budget), 10);
        reservation.take_again().await;
        assert_eq!(free(&budget), 6);
        assert!(reservation.cover(TEN).await);
        let begun = tokio::time::Instant::now();
        assert!(!reservation.cover(TEN + 1).await, "nobody else could give any back");
        assert_eq!(begun.elapsed(), Duration::ZERO, "so it does not wait");
        drop(reservation);
        assert_eq!(free(&budget), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn one_of_two_deadlocked_reservations_gives_up() {
        let budget = MemoryBudget::new(TEN);
        let (one, other) = (budget.take(TEN / 2, CALLER).await, budget.take(TEN / 2, CALLER).await);
        let first = async { one.cover(TEN).await };
        let second = async {
            tokio::task::yield_now().await;
            let got = other.cover(TEN).await;
            drop(other);
            got
        };
        assert_eq!(tokio::join!(first, second), (true, false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_started_answer_has_priority_over_new_calls_and_waits_up_to_its_timeout() {
        let budget = MemoryBudget::new(TEN);
        let (one, other) = (budget.take(TEN / 2, CALLER).await, budget.take(TEN / 2, CALLER).await);
        let begun = tokio::time::Instant::now();
        assert!(!one.cover(TEN).await, "the other does not end");
        assert_eq!(begun.elapsed(), TIMEOUT);
        let waits = async { one.cover(TEN).await };
        let ends = async {
            tokio::task::yield_now().await;
            let late = Arc::clone(&budget);
            let late = tokio::spawn(async move { late.take(1, CALLER).await });
            tokio::task::yield_now().await;
            drop(other);
            [late]
        };
        let (got, [late]) = tokio::join!(waits, ends);
        assert!(got && !late.is_finished(), "all of it went to the one that had begun");
        drop(one);
        late.await.expect("it goes on");
    }
}
