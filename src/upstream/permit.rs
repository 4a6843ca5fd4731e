//! Permits for calls: `upstream.max_concurrent` of them, and a few extra ones for models that wait while calls to other
//! models hold all permits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};

use super::fair::FairOrder;
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
}

/// The permits, and the calls that hold them. Used by `Arc`.
#[derive(Debug)]
pub(super) struct Permits {
    usual: Arc<Semaphore>,
    /// Fair order of the waiting callers.
    order: FairOrder,
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
        let (usual, order) = (Arc::new(Semaphore::new(most)), FairOrder::default());
        Arc::new(Self { usual, order, beyond, under_way: Mutex::default() })
    }

    /// Waits for a permit. Waiting callers get permits in turn, and each caller's waits are served in order.
    /// After three seconds a model without a call in flight may take an extra permit, so slow calls to other
    /// models do not block it.
    pub(super) async fn take(self: &Arc<Self>, claim: Claim) -> CallPermit {
        // Pinned outside the loop, so the place in the queue survives each timeout.
        let mut permit = std::pin::pin!(self.acquire(claim.caller));
        loop {
            tokio::select! {
                // A usual permit is preferred if both branches are ready.
                biased;
                held = &mut permit => {
                    self.enter(claim.model);
                    return CallPermit { permits: Arc::clone(self), claim, held: Some(held), counts: true };
                }
                () = sleep(NEIGHBOURS_WAIT) => {
                    // The extra permit is taken first, so a model counts as under way only if it has one.
                    if let Ok(held) = Arc::clone(&self.beyond).try_acquire_owned()
                        && self.enter_first(claim.model)
                    {
                        return CallPermit { permits: Arc::clone(self), claim, held: Some(held), counts: true };
                    }
                }
            }
        }
    }

    async fn acquire(&self, caller: Key) -> OwnedSemaphorePermit {
        // The semaphore hands a released permit to the callers that wait in it, so a free one may be taken at once.
        // Each caller waits there with one call. Its next call enters once its task runs, and may be passed until then.
        if let Ok(held) = Arc::clone(&self.usual).try_acquire_owned() {
            return held;
        }
        let held = self.order.wait(caller, Arc::clone(&self.usual).acquire_owned()).await;
        held.expect("the semaphore must never be closed")
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

/// A permit that is released during waits. A caller that was told to slow down must not block others.
pub(super) struct CallPermit {
    permits: Arc<Permits>,
    claim: Claim,
    held: Option<OwnedSemaphorePermit>,
    /// True if it counts as a call of its model.
    counts: bool,
}

impl CallPermit {
    /// Exchanges the permit for an extra one, if one is free, so that other calls can use the usual permit. Otherwise
    /// keeps it.
    pub(super) fn swap_for_extra_permit(&mut self) {
        if let Ok(beyond) = Arc::clone(&self.permits.beyond).try_acquire_owned() {
            self.held = Some(beyond);
        }
    }

    /// Releases the permit for `wait`, then queues again, at most until `deadline`. Returns false if no permit became
    /// free by then.
    pub(super) async fn pause(&mut self, wait: Duration, deadline: Instant) -> bool {
        self.leave();
        sleep(wait).await;
        let Ok(mut next) = timeout_at(deadline, self.permits.take(self.claim)).await else {
            return false;
        };
        // `next` keeps nothing, so its `Drop` releases nothing.
        (self.held, self.counts) = (next.held.take(), std::mem::take(&mut next.counts));
        true
    }

    /// Waits for `other` without holding the permit, because the holder of `other` may itself be waiting for a permit.
    pub(super) async fn aside<T>(&mut self, other: impl Future<Output = T>) -> T {
        self.leave();
        let other = other.await;
        let mut next = self.permits.take(self.claim).await;
        (self.held, self.counts) = (next.held.take(), std::mem::take(&mut next.counts));
        other
    }

    fn leave(&mut self) {
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
        Claim { caller: key(Tag::Scope, "caller"), model: key(Tag::Model, name) }
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
