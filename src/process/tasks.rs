//! The only place that spawns tasks. Every task is counted, so a shutdown can wait for all of them.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;

/// Group of tasks that are stopped together. Cheap to clone; clones refer to the same group.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// Creates an empty group.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `task` to its end. [`Tasks::stop`] does not cancel it, and [`Tasks::join`] waits for it.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // A dropped handle detaches the task. The tracker still counts it.
        drop(self.tracker.spawn(task));
    }

    /// Like [`Tasks::spawn`], on another runtime.
    pub fn spawn_on<F>(&self, runtime: &Handle, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        drop(self.tracker.spawn_on(task, runtime));
    }

    /// Lends `task` to a waiter. The waiter polls it, without the cost of a spawned task. If the waiter is dropped, the
    /// task is spawned and continues. It counts as a task of the group from now on.
    pub fn lend<F>(&self, task: F) -> DetachOnDrop
    where
        F: Future<Output = ()> + Send + 'static,
    {
        DetachOnDrop(Some(Box::pin(self.tracker.track_future(task))))
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

    /// Returns true if the group was told to stop.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Returns the number of unfinished tasks.
    pub fn running(&self) -> usize {
        self.tracker.len()
    }

    /// Waits until all tasks have finished, at most `timeout`, and returns the number still running then.
    pub async fn join(&self, timeout: Duration) -> usize {
        // The tracker reports an empty group only after it is closed. Tasks can still be spawned.
        self.tracker.close();
        let waited = tokio::time::timeout(timeout, self.tracker.wait()).await;
        if waited.is_ok() { 0 } else { self.running() }
    }
}

/// Future of [`Tasks::lend`]. Resolves when the work is done. Like a spawned task, it contains panics.
pub struct DetachOnDrop(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Future for DetachOnDrop {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // A panic counts as the end of the work, so the waiter goes on, as with a spawned task.
        let polled = self.0.as_mut().map(|task| catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(cx))));
        if let Some(Ok(Poll::Pending)) = polled {
            return Poll::Pending;
        }
        // The future is complete or panicked. It must neither be polled again nor be spawned on drop.
        self.0 = None;
        Poll::Ready(())
    }
}

impl Drop for DetachOnDrop {
    fn drop(&mut self) {
        // Without a runtime the process is shutting down, and the rest of the work is dropped.
        if let (Some(task), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            // The tracker wraps the future itself, so the spawned task is still counted.
            drop(runtime.spawn(task));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn work_is_driven_by_its_waiter() {
        let tasks = Tasks::new();
        let (done, mut seen) = oneshot::channel();
        let lent = tasks.lend(async { done.send(()).expect("the test waits") });
        assert_eq!((tasks.running(), seen.try_recv().is_err()), (1, true), "counted, and not begun");
        lent.await;
        assert_eq!((tasks.running(), seen.try_recv()), (0, Ok(())));
    }

    #[tokio::test]
    async fn work_continues_as_a_task_when_its_waiter_is_dropped() {
        let tasks = Tasks::new();
        let ((go, gone), (done, seen)) = (oneshot::channel(), oneshot::channel());
        let mut lent = tasks.lend(async {
            gone.await.expect("the test says when");
            done.send(()).expect("the test waits");
        });
        assert!(futures_util::poll!(&mut lent).is_pending());
        drop(lent);
        assert_eq!(tasks.running(), 1, "a drain waits for it all the time");
        go.send(()).expect("the work waits");
        assert_eq!(seen.await, Ok(()));
        assert_eq!(tasks.join(Duration::from_secs(10)).await, 0);
    }

    #[tokio::test]
    async fn a_panic_in_the_work_does_not_reach_its_waiter() {
        let tasks = Tasks::new();
        tasks.lend(async { panic!("for the test") }).await;
        assert_eq!(tasks.running(), 0);
    }
}
