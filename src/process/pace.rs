//! Division of long work into slices, so that the other tasks of a worker run in between.

use std::pin::pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::task::yield_now;

/// Length of a slice: short beside a call to an upstream, long beside the cost of a switch between tasks.
const SLICE: Duration = Duration::from_micros(250);

/// Amount of work after which the clock is read. Work that stays below it costs nothing more.
const UNMEASURED_BYTES: usize = 32 * 1024;

/// Pace of long work on the thread of a worker. The work tells it after each step how much it has done.
///
/// A thread for blocking work would take turns as well. But many of them leave a worker only a small share of the
/// processors, and a hanging disk can occupy all of them.
#[derive(Debug, Default)]
pub struct Pace {
    /// Work since the clock was read.
    unmeasured_bytes: usize,
    /// Begin of the slice. `None` until the work has become long enough.
    since: Option<Instant>,
}

impl Pace {
    /// Notes a step that has processed `bytes`. At the end of a slice, lets the other tasks of this thread run.
    pub async fn after(&mut self, bytes: usize) {
        if self.ends_slice(bytes) {
            yield_now().await;
        }
    }

    /// Notes a step that has processed `bytes`. Returns true at the end of a slice; then the work must call
    /// [`Pace::let_others_run`] before its next step.
    pub fn ends_slice(&mut self, bytes: usize) -> bool {
        self.unmeasured_bytes += bytes;
        if self.unmeasured_bytes < UNMEASURED_BYTES {
            return false;
        }
        self.unmeasured_bytes = 0;
        let now = Instant::now();
        let is_over = now.duration_since(*self.since.get_or_insert(now)) >= SLICE;
        if is_over {
            // The next slice begins with the next look at the clock, so the time of the other tasks does not count.
            self.since = None;
        }
        is_over
    }

    /// Wakes the task again after the other tasks of this thread, including those that wait for a socket. The caller
    /// must return `Poll::Pending`.
    pub fn let_others_run(context: &mut Context<'_>) {
        // A plain wake-up would come before the sockets are polled. The first poll of this future registers the task.
        let _: Poll<()> = pin!(yield_now()).poll(context);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures_util::poll;

    use super::*;

    /// Does `work` beside another task of the thread, and returns the number of turns that this task got meanwhile.
    pub(crate) async fn turns_during<T>(work: impl Future<Output = T>) -> (T, u64) {
        let turns = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&turns);
        let neighbour = tokio::spawn(async move {
            loop {
                counted.fetch_add(1, Ordering::Relaxed);
                yield_now().await;
            }
        });
        let done = work.await;
        neighbour.abort();
        (done, turns.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn small_work_is_never_interrupted() {
        let mut pace = Pace::default();
        let work = pin!(async {
            for _ in 0..10 {
                pace.after(UNMEASURED_BYTES / 10).await;
            }
        });
        assert!(poll!(work).is_ready());
    }

    #[tokio::test]
    async fn other_tasks_run_after_each_slice_of_long_work() {
        let (mut pace, begun) = (Pace::default(), Instant::now());
        let work = async {
            while begun.elapsed() < 40 * SLICE {
                pace.after(UNMEASURED_BYTES).await;
            }
        };
        let ((), turns) = turns_during(work).await;
        assert!((2..=40).contains(&turns), "{turns} turns");
    }
}
