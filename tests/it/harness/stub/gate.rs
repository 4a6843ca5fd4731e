//! Holds calls until a test releases them, and lets a test wait until calls are held.

use std::time::Duration;

use tokio::sync::{Semaphore, watch};

/// Timeout of every wait in a test. A condition that is not met by then fails the test.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Waits until a watched number reaches a bound.
///
/// The deadline uses a thread's real time, because a paused Tokio clock would skip it.
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

/// Counts one call as held until drop, which also happens when its client disconnects.
struct Held<'a>(&'a Gate);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held.send_modify(|held| *held -= 1);
    }
}

impl Gate {
    /// Waits for a release. Calls are released in order of arrival.
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

    /// Releases this many calls. A surplus releases later calls.
    pub(crate) fn release(&self, count: usize) {
        self.permits.add_permits(count);
    }
}
