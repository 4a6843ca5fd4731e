//! The memory that answers under way may take together: asked for before a call by estimate, and for more while an
//! answer comes that is larger than it looked.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::fair::FairOrder;
use crate::key::Key;

/// How long an answer that needs more waits for others to end. Meanwhile its connection stands still.
const PATIENCE: Duration = Duration::from_secs(5);

/// More is taken in steps, so that not every piece of an answer asks for it.
const STEP_BYTES: u64 = 64 * 1024;

/// Answers that are decoded at once. A decoder may hold a window of 16 MiB that no share counts.
const MAX_DECODINGS: usize = 2;

/// See above. Used by `Arc`.
#[derive(Debug)]
pub(super) struct Room {
    total: u64,
    state: Mutex<State>,
    freed: Notify,
    /// Order of the callers that wait to begin.
    order: FairOrder,
    /// Held by the first of those that wait to begin, so that small calls do not overtake a large one for ever.
    door: tokio::sync::Mutex<()>,
    /// Held while an answer in a content coding is decoded.
    decodings: Semaphore,
}

#[derive(Debug)]
struct State {
    free: u64,
    /// An answer that has begun waits for more. It goes before calls that have not, and there is only one: two that
    /// hold what the other needs would wait for ever.
    one_waits: bool,
}

impl Room {
    pub(super) fn new(total: u64) -> Arc<Self> {
        let state = Mutex::new(State { free: total, one_waits: false });
        let decodings = Semaphore::new(MAX_DECODINGS);
        let (order, door) = (FairOrder::default(), tokio::sync::Mutex::default());
        Arc::new(Self { total, state, freed: Notify::new(), order, door, decodings })
    }

    /// Waits for this many bytes, or for all there are if it is more. Callers that wait are served in turn.
    pub(super) async fn take(self: &Arc<Self>, bytes: u64, caller: Key) -> Share {
        let bytes = bytes.min(self.total);
        self.order.wait(caller, self.take_in_order(bytes)).await;
        Share { room: Arc::clone(self), caller, estimate: bytes, held: AtomicU64::new(bytes) }
    }

    async fn take_in_order(&self, bytes: u64) {
        let _first = self.door.lock().await;
        loop {
            let freed = self.freed.notified();
            if self.try_take(bytes, |state| !state.one_waits) {
                return;
            }
            freed.await;
        }
    }

    fn try_take(&self, bytes: u64, may: impl Fn(&State) -> bool) -> bool {
        let mut state = self.lock();
        let fits = state.free >= bytes && may(&state);
        if fits {
            state.free -= bytes;
        }
        fits
    }

    /// Waits for more, for somebody who holds `held`, as long as others hold any that may come free.
    async fn take_more(&self, bytes: u64, held: u64) -> bool {
        let Some(_waiting) = Waiting::begin(self) else { return false };
        loop {
            let freed = self.freed.notified();
            if self.try_take(bytes, |_| true) {
                return true;
            }
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

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one that waits for more.
struct Waiting<'a>(&'a Room);

impl<'a> Waiting<'a> {
    fn begin(room: &'a Room) -> Option<Self> {
        let was_waiting = std::mem::replace(&mut room.lock().one_waits, true);
        (!was_waiting).then_some(Self(room))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().one_waits = false;
        self.0.freed.notify_waiters();
    }
}

/// What one call holds of the room; its drop gives it back.
#[derive(Debug)]
pub(super) struct Share {
    room: Arc<Room>,
    caller: Key,
    estimate: u64,
    held: AtomicU64,
}

impl Share {
    /// Sees to it that at least this many bytes are held; says whether there is room for that.
    pub(super) async fn cover(&self, bytes: u64) -> bool {
        let held = self.held.load(Ordering::Relaxed);
        if bytes <= held {
            return true;
        }
        let more = (bytes - held).next_multiple_of(STEP_BYTES);
        let taken = self.room.try_take(more, |_| true)
            || timeout(PATIENCE, self.room.take_more(more, held)).await.unwrap_or(false);
        if taken {
            self.held.fetch_add(more, Ordering::Relaxed);
        }
        taken
    }

    /// Waits until the answer may be decoded.
    pub(super) async fn decoding_permit(&self) -> SemaphorePermit<'_> {
        self.room.decodings.acquire().await.expect("the semaphore must stay open")
    }

    /// Gives everything back while no call is under way. A call that waits for its permit must hold nothing here, since
    /// calls that have theirs may wait for it.
    pub(super) fn give_up(&self) {
        let held = self.held.swap(0, Ordering::Relaxed);
        if held > 0 {
            self.room.give_back(held);
        }
    }

    /// Waits for as much as the answer is likely to need, after everything was given back.
    pub(super) async fn take_again(&self) {
        let taken = self.room.take(self.estimate, self.caller).await;
        self.held.store(taken.held.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.give_back(self.held.load(Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: u64 = 10 * STEP_BYTES;
    const CALLER: Key = Key::from_bytes([1; 32]);

    fn free(room: &Room) -> u64 {
        room.lock().free / STEP_BYTES
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_beyond_the_estimate_takes_more_room_and_all_of_it_comes_back() {
        let room = Room::new(TEN);
        let share = room.take(4 * STEP_BYTES, CALLER).await;
        assert!(share.cover(4 * STEP_BYTES).await);
        assert_eq!(free(&room), 6);
        assert!(share.cover(4 * STEP_BYTES + 1).await);
        assert_eq!(free(&room), 5);
        share.give_up();
        assert_eq!(free(&room), 10);
        share.take_again().await;
        assert_eq!(free(&room), 6);
        assert!(share.cover(TEN).await);
        assert!(!share.cover(TEN + 1).await, "nobody else could give any back");
        drop(share);
        assert_eq!(free(&room), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_that_need_what_the_other_holds_one_gives_up_and_the_other_goes_on() {
        let room = Room::new(TEN);
        let (one, other) = (room.take(TEN / 2, CALLER).await, room.take(TEN / 2, CALLER).await);
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
    async fn an_answer_that_has_begun_goes_before_calls_that_have_not_and_waits_for_no_more_than_its_patience() {
        let room = Room::new(TEN);
        let (one, other) = (room.take(TEN / 2, CALLER).await, room.take(TEN / 2, CALLER).await);
        let begun = tokio::time::Instant::now();
        assert!(!one.cover(TEN).await, "the other does not end");
        assert_eq!(begun.elapsed(), PATIENCE);
        let waits = async { one.cover(TEN).await };
        let ends = async {
            tokio::task::yield_now().await;
            let late = Arc::clone(&room);
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
