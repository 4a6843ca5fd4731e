//! The right to have one call under way.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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

    /// Lets others go first for `wait`, then queues again.
    pub(super) async fn pause(&mut self, wait: Duration) {
        self.held = None;
        tokio::time::sleep(wait).await;
        self.held = Some(acquire(&self.permits).await);
    }
}

async fn acquire(permits: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    Arc::clone(permits).acquire_owned().await.expect("the semaphore must never be closed")
}
