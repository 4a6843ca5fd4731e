//! Permits for calls: `upstream.max_concurrent` of them, and a few extra ones for models that wait while calls to other
//! models hold all permits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};

use super::fair::FairOrder;
use super::pacing::PaceTurn;
use crate::config::Priority;
use crate::key::{Key, KeyMap};

/// Time that a call waits for calls to other models before it may use an extra permit.
const NEIGHBOURS_WAIT: Duration = Duration::from_secs(3);

/// Caller and model that need a permit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    /// Caller that waits.
    pub(super) caller: Key,
    /// Model of the call.
    pub(super) model: Key,
    /// Priority of the call.
    pub(super) priority: Priority,
}

/// Divisor of the usual permits for those that bulk calls leave to interactive ones.
const RESERVE: usize = 8;

/// The permits, and the calls that hold them. Used by `Arc`.
#[derive(Debug)]
pub(super) struct Permits {
    usual: Arc<Semaphore>,
    /// Bulk calls hold one of these as well, so a few of the usual permits are left to interactive calls.
    for_bulk: Arc<Semaphore>,
    /// Fair orders of the waiting callers, by priority.
    orders: [FairOrder; 2],
    /// Extra permits, at most a fourth of the usual number. They serve the first calls of models that had to wait, and
    /// calls that take very long.
    beyond: Arc<Semaphore>,
    /// Number of calls in flight, by model.
    under_way: Mutex<KeyMap<usize>>,
}

impl Permits {
    /// Creates `most` permits.
    pub(super) fn new(most: usize) -> Arc<Self> {
        let beyond = Arc::new(Semaphore::new((most / 4).max(1)));
        let (usual, for_bulk) = (Arc::new(Semaphore::new(most)), Arc::new(Semaphore::new(most - most / RESERVE)));
        Arc::new(Self { usual, for_bulk, orders: Default::default(), beyond, under_way: Mutex::default() })
    }

    /// Waits for a permit. Waiting callers get permits in turn, and each caller's waits of one priority are served in
    /// order. After three seconds a model without a call in flight may take an extra permit, so slow calls to other
    /// models do not block it.
    pub(super) async fn take(self: &Arc<Self>, claim: Claim) -> CallPermit {
        // Pinned outside the loop, so the place in the queue survives each timeout.
        let mut permit = std::pin::pin!(self.acquire(claim));
        loop {
            tokio::select! {
                // A usual permit is preferred if both branches are ready.
                biased;
                held = &mut permit => {
                    self.enter(claim.model);
                    return CallPermit { permits: Arc::clone(self), claim, held: Some(held), counts: true, turn: None };
                }
                () = sleep(NEIGHBOURS_WAIT) => {
                    // The extra permit is taken first, so a model counts as under way only if it has one.
                    if let Ok(held) = Arc::clone(&self.beyond).try_acquire_owned()
                        && self.enter_first(claim.model)
                    {
                        let held = Some(HeldPermit { _usual: held, _for_bulk: None });
                        return CallPermit { permits: Arc::clone(self), claim, held, counts: true, turn: None };
                    }
                }
            }
        }
    }

    async fn acquire(&self, Claim { caller, priority, .. }: Claim) -> HeldPermit {
        let order = &self.orders[priority as usize];
        match priority {
            Priority::Interactive => HeldPermit { _usual: acquire(&self.usual, order, caller).await, _for_bulk: None },
            Priority::Bulk => {
                let for_bulk = acquire(&self.for_bulk, order, caller).await;
                // Few calls come here at once, so they need no order, and interactive ones that came first go first.
                let usual = Arc::clone(&self.usual).acquire_owned().await.expect(NEVER_CLOSED);
                HeldPermit { _usual: usual, _for_bulk: Some(for_bulk) }
            }
        }
    }

    fn enter(&self, model: Key) {
        *self.under_way().entry(model).or_default() += 1;
    }

    fn enter_first(&self, model: Key) -> bool {
        let mut under_way = self.under_way();
        // Check and insert share one lock, so only one waiter of a model is the first.
        let is_first = !under_way.contains_key(&model);
        if is_first {
            under_way.insert(model, 1);
        }
        is_first
    }

    fn leave(&self, model: &Key) {
        let mut under_way = self.under_way();
        if let Some(calls) = under_way.get_mut(model) {
            *calls -= 1;
            if *calls == 0 {
                // `enter_first` takes a missing entry as a model without calls.
                under_way.remove(model);
            }
        }
    }

    fn under_way(&self) -> MutexGuard<'_, KeyMap<usize>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const NEVER_CLOSED: &str = "the semaphore must never be closed";

async fn acquire(permits: &Arc<Semaphore>, order: &FairOrder, caller: Key) -> OwnedSemaphorePermit {
    // The semaphore hands a released permit to the callers that wait in it, so a free one may be taken at once.
    // Each caller waits there with one call. Its next call enters once its task runs, and may be passed until then.
    if let Ok(held) = Arc::clone(permits).try_acquire_owned() {
        return held;
    }
    order.wait(caller, Arc::clone(permits).acquire_owned()).await.expect(NEVER_CLOSED)
}

/// A permit, with the one that bulk calls hold as well.
struct HeldPermit {
    _usual: OwnedSemaphorePermit,
    _for_bulk: Option<OwnedSemaphorePermit>,
}

/// A permit that is released during waits. A caller that was told to slow down must not block others.
pub(super) struct CallPermit {
    permits: Arc<Permits>,
    claim: Claim,
    held: Option<HeldPermit>,
    /// True if it counts as a call of its model.
    counts: bool,
    /// Turn of the next call, if the pacer has given it already.
    turn: Option<PaceTurn>,
}

impl CallPermit {
    /// Adds the turn of the next call.
    pub(super) fn set_turn(&mut self, turn: Option<PaceTurn>) {
        self.turn = turn;
    }

    /// Returns the number of tokens that its turn has room for.
    pub(super) fn room(&self) -> usize {
        self.turn.as_ref().map_or(usize::MAX, PaceTurn::room)
    }

    /// Takes the turn of the next call.
    pub(super) const fn take_turn(&mut self) -> Option<PaceTurn> {
        self.turn.take()
    }

    /// Returns the caller and the model of the call.
    pub(super) const fn claim(&self) -> Claim {
        self.claim
    }

    /// Exchanges the permit for an extra one, if one is free, so that other calls can use the usual permit. Otherwise
    /// keeps it.
    pub(super) fn swap_for_extra_permit(&mut self) {
        if let Ok(beyond) = Arc::clone(&self.permits.beyond).try_acquire_owned() {
            self.held = Some(HeldPermit { _usual: beyond, _for_bulk: None });
        }
    }

    /// Releases the permit for `wait`, then queues again, at most until `deadline`. Returns false if no permit became
    /// free by then.
    pub(super) async fn pause(&mut self, wait: Duration, deadline: Instant) -> bool {
        self.leave();
        if !wait.is_zero() {
            sleep(wait).await;
        }
        let Ok(mut next) = timeout_at(deadline, self.permits.take(self.claim)).await else {
            return false;
        };
        // `next` keeps nothing, so its `Drop` releases nothing.
        (self.held, self.counts) = (next.held.take(), std::mem::take(&mut next.counts));
        true
    }

    /// Waits for `other` without holding the permit or a turn, because the holder of `other` may itself be waiting for a
    /// permit.
    pub(super) async fn aside<T>(&mut self, other: impl Future<Output = T>) -> T {
        self.leave();
        // Its holder may also wait for a turn that is free only when this one has ended.
        self.turn = None;
        let other = other.await;
        let mut next = self.permits.take(self.claim).await;
        (self.held, self.counts) = (next.held.take(), std::mem::take(&mut next.counts));
        other
    }

    /// Releases the permit. [`pause`](Self::pause) takes one again.
    pub(super) fn leave(&mut self) {
        self.held = None;
        // `leave` runs again in `Drop`, after a pause that got no new permit.
        if std::mem::take(&mut self.counts) {
            self.permits.leave(&self.claim.model);
        }
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{KeyBuilder, Tag};

    fn model(name: &str) -> Claim {
        let key = |tag, name: &str| KeyBuilder::new(None).part(tag, name.as_bytes()).finish();
        let priority = Priority::Interactive;
        Claim { caller: key(Tag::Scope, "caller"), model: key(Tag::Model, name), priority }
    }

    #[tokio::test(start_paused = true)]
    async fn a_model_gets_one_extra_call_while_other_models_hold_all_permits() {
        let (permits, begun) = (Permits::new(2), Instant::now());
        let slow = [permits.take(model("slow")).await, permits.take(model("slow")).await];
        let first = permits.take(model("well")).await;
        assert_eq!(begun.elapsed(), NEIGHBOURS_WAIT);
        let second = tokio::time::timeout(Duration::from_mins(1), permits.take(model("well"))).await;
        assert!(second.is_err(), "the first one is under way");
        let third = tokio::time::timeout(Duration::from_mins(1), permits.take(model("slow"))).await;
        assert!(third.is_err(), "it has its permits");
        drop(first);
        assert!(tokio::time::timeout(Duration::from_mins(1), permits.take(model("well"))).await.is_ok());
        drop(slow);
        assert!(permits.under_way().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn at_most_a_quarter_of_the_calls_run_beyond_the_permits() {
        let permits = Permits::new(8);
        let mut calls = Vec::new();
        for _ in 0..8 {
            calls.push(permits.take(model("slow")).await);
        }
        for (number, free) in [1, 2, 2, 2].into_iter().enumerate() {
            calls[number].swap_for_extra_permit();
            assert_eq!(permits.usual.available_permits(), free, "{number}");
        }
        drop(calls);
        assert_eq!((permits.usual.available_permits(), permits.beyond.available_permits()), (8, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_releases_the_permit_to_others() {
        let permits = Permits::new(1);
        let mut paused = permits.take(model("a")).await;
        let (waited, other) =
            tokio::join!(paused.pause(Duration::from_secs(1), Instant::now() + Duration::from_secs(2)), async {
                permits.take(model("b")).await
            });
        assert!(!waited, "the other one still has the permit");
        drop((other, paused));
        assert_eq!(permits.usual.available_permits(), 1);
    }
}
