//! The only place that spawns: every task is counted, so that a drain can wait for all of them.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;

/// A group of tasks with one end. Cheap to clone; clones are the same group.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// An empty group.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `task` to its end. It is not cancelled by [`Tasks::stop`]; a drain waits for it.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        drop(self.tracker.spawn(task));
    }

    /// Runs `task` until it ends or the group is told to stop, whichever comes first.
    pub fn spawn_until_stop<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stopped = self.stop.clone().cancelled_owned();
        drop(self.tracker.spawn(async move {
            tokio::select! {
                () = stopped => {}
                () = task => {}
            }
        }));
    }

    /// Tells the group to stop.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Resolves once the group was told to stop.
    pub fn stopped(&self) -> WaitForCancellationFutureOwned {
        self.stop.clone().cancelled_owned()
    }

    /// How many tasks have not ended.
    pub fn running(&self) -> usize {
        self.tracker.len()
    }

    /// Waits until no task is left, at most `patience`; says how many were still running then.
    pub async fn join(&self, patience: Duration) -> usize {
        self.tracker.close();
        let waited = tokio::time::timeout(patience, self.tracker.wait()).await;
        if waited.is_ok() { 0 } else { self.running() }
    }
}
