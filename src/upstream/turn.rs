//! The right to have one call under way.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};

/// A permit that is given up during waits: a caller that is told to slow down must not hold back those that are not.
pub(super) struct Turn {
    permits: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
}

impl Turn {
    /// Waits for a permit. They are given in the order they were asked for.
    pub(super) async fn take(permits: &Arc<Semaphore>) -> Self {
        let held = Some(acquire(permits).await);
        Self { permits: Arc::clone(permits), held }
    }

    /// Gives the permit up for good: what it is held for takes too long.
    pub(super) fn give_back(&mut self) {
        self.held = None;
    }

    /// Lets others go first for `wait`, then queues again, at most until `deadline`; false where it is not its turn by then.
    pub(super) async fn pause(&mut self, wait: Duration, deadline: Instant) -> bool {
        self.held = None;
        sleep(wait).await;
        self.held = timeout_at(deadline, acquire(&self.permits)).await.ok();
        self.held.is_some()
    }
}

async fn acquire(permits: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    Arc::clone(permits).acquire_owned().await.expect("the semaphore must never be closed")
}
