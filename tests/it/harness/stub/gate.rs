//! Holds calls until a test lets them go, and lets a test wait until they are held.

use std::time::Duration;

use tokio::sync::{Semaphore, watch};

/// No wait of a test lasts longer; a condition that is not met by then fails the test.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Waits until a watched number reaches a bound.
///
/// The deadline is the machine's own time, so that a paused clock does not jump over it.
pub(crate) async fn reach(counter: &watch::Sender<usize>, bound: usize, what: &str) {
    let mut receiver = counter.subscribe();
    let (late, timer) = tokio::sync::oneshot::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        let _late = late;
        std::thread::park_timeout(DEADLINE);
    });
    tokio::select! {
        reached = receiver.wait_for(|count| *count >= bound) => { reached.expect("the stub outlives the wait"); }
        _ = timer => panic!("{what}: {} of {bound} after {DEADLINE:?}", *counter.borrow()),
    }
    watchdog.thread().unpark();
}

/// Calls that wait inside the stub.
pub(crate) struct Gate {
    held: watch::Sender<usize>,
    permits: Semaphore,
}

impl Default for Gate {
    fn default() -> Self {
        Self { held: watch::Sender::new(0), permits: Semaphore::new(0) }
    }
}

/// Counts one call as held for as long as it lives, also when its client hangs up.
struct Held<'a>(&'a Gate);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held.send_modify(|held| *held -= 1);
    }
}

impl Gate {
    /// Waits for a release; first come, first released.
    pub(crate) async fn pass(&self) {
        self.held.send_modify(|held| *held += 1);
        let _held = Held(self);
        self.permits.acquire().await.expect("the gate is never closed").forget();
    }

    /// Waits until at least this many calls are held at once.
    pub(crate) async fn held(&self, count: usize) {
        reach(&self.held, count, "calls held").await;
    }

    pub(crate) fn held_now(&self) -> usize {
        *self.held.borrow()
    }

    /// Lets this many calls go, also some that are still to come.
    pub(crate) fn release(&self, count: usize) {
        self.permits.add_permits(count);
    }
}
