//! Fair order among callers in front of a FIFO queue.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Mutex as Queue;

use crate::key::{Key, KeyMap};

/// One queue per caller; only the head of each waits in a common queue. So the common queue serves callers in turn: a
/// caller with thousands of waiters delays another caller no longer than a caller with one waiter does.
#[derive(Debug, Default)]
pub struct FairOrder {
    /// Queues of all waiting callers.
    queues: Mutex<KeyMap<Arc<Queue<()>>>>,
}

/// A place in the queue of one caller. The last one to be dropped removes the queue.
struct QueuePlace<'a> {
    order: &'a FairOrder,
    caller: Key,
    queue: Arc<Queue<()>>,
}

impl FairOrder {
    /// Waits until the caller's earlier waiters have passed the common queue, then for `common`, the
    /// wait in that queue.
    pub async fn wait<T>(&self, caller: Key, common: impl Future<Output = T>) -> T {
        let place = self.join(caller);
        // The guard is held during the common wait, so the common queue holds at most one waiter of each caller. The
        // next one enters when its task runs after the guard is released.
        let _head = place.queue.lock().await;
        common.await
    }

    fn join(&self, caller: Key) -> QueuePlace<'_> {
        // The reference is taken under the lock of the map, so a concurrent `Drop` counts it and keeps the queue.
        let queue = Arc::clone(self.queues().entry(caller).or_default());
        QueuePlace { order: self, caller, queue }
    }

    fn queues(&self) -> MutexGuard<'_, KeyMap<Arc<Queue<()>>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for QueuePlace<'_> {
    fn drop(&mut self) {
        let mut queues = self.order.queues();
        // Two references remain: the map's and this one. New ones are made only under the lock that is held here.
        if Arc::strong_count(&self.queue) == 2 {
            queues.remove(&self.caller);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;
    use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
    use tokio::task::yield_now;

    use super::*;
    use crate::key::{KeyBuilder, Tag};

    fn caller(name: &str) -> Key {
        KeyBuilder::new(None).part(Tag::Scope, name.as_bytes()).finish()
    }

    /// Waiters for one permit that is not free yet, and the order in which they get it.
    #[derive(Clone)]
    struct Crowd {
        order: Arc<FairOrder>,
        common: Arc<Semaphore>,
        served: UnboundedSender<&'static str>,
    }

    impl Crowd {
        async fn joined_by(&self, name: &'static str) -> tokio::task::JoinHandle<()> {
            let Self { order, common, served } = self.clone();
            let waiter = tokio::spawn(async move {
                let permit = order.wait(caller(name), common.acquire()).await.expect("it must stay open");
                served.send(name).expect("the test listens");
                drop(permit);
            });
            yield_now().await;
            waiter
        }
    }

    #[tokio::test]
    async fn callers_are_served_round_robin_and_each_in_fifo_order() {
        let (served, mut seen) = unbounded_channel();
        let crowd = Crowd { order: Arc::default(), common: Arc::new(Semaphore::new(0)), served };
        let mut waiters = Vec::new();
        for name in ["a", "a", "a", "a", "b", "c", "b"] {
            waiters.push(crowd.joined_by(name).await);
        }
        crowd.common.add_permits(1);
        let mut order = Vec::new();
        for waiter in waiters {
            waiter.await.expect("none may panic");
            order.push(seen.recv().await.expect("each is served"));
        }
        assert_eq!(order, ["a", "b", "c", "a", "b", "a", "a"]);
        assert!(crowd.order.queues().is_empty());
    }

    #[tokio::test]
    async fn waiters_that_leave_are_removed_from_the_queue() {
        let (served, mut seen) = unbounded_channel();
        let crowd = Crowd { order: Arc::default(), common: Arc::new(Semaphore::new(0)), served };
        let (first, second) = (crowd.joined_by("a").await, crowd.joined_by("a").await);
        let last = crowd.joined_by("a").await;
        for left in [first, second] {
            left.abort();
            assert!(left.await.is_err());
        }
        crowd.common.add_permits(1);
        last.await.expect("it must be served");
        assert_eq!(seen.recv().await, Some("a"));
        assert!(crowd.order.queues().is_empty());
    }

    #[test]
    fn a_queue_exists_as_long_as_its_caller_has_waiters() {
        let order = FairOrder::default();
        let (one, other) = (order.join(caller("a")), order.join(caller("a")));
        drop(one);
        let later = order.join(caller("a"));
        assert!(Arc::ptr_eq(&other.queue, &later.queue));
        drop((other, later));
        assert!(order.queues().is_empty());
    }
}
