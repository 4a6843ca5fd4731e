//! Lifecycle of the process: starting, ready, draining.

use std::sync::atomic::{AtomicBool, Ordering};

/// Lifecycle of the process. Readiness is a latch: once a drain has begun, it does not return.
#[derive(Debug, Default)]
pub struct Lifecycle {
    started: AtomicBool,
    draining: AtomicBool,
}

impl Lifecycle {
    /// Notes that both ports serve.
    pub fn start(&self) {
        self.started.store(true, Ordering::SeqCst);
    }

    /// Notes that the process begins to stop.
    pub fn begin_drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    /// Returns true if the process accepts requests.
    pub fn is_ready(&self) -> bool {
        self.started.load(Ordering::SeqCst) && !self.is_draining()
    }

    /// Returns true if the process is shutting down.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_ends_with_the_drain_and_never_returns() {
        let lifecycle = Lifecycle::default();
        assert!(!lifecycle.is_ready() && !lifecycle.is_draining());
        lifecycle.start();
        assert!(lifecycle.is_ready());
        lifecycle.begin_drain();
        lifecycle.start();
        assert!(!lifecycle.is_ready() && lifecycle.is_draining());
    }
}
