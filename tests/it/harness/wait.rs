//! Polls conditions that no channel reports, until a deadline.

use std::time::{Duration, Instant};

use super::stub::DEADLINE;

/// Waits until a condition holds. `what` names the condition in the panic message.
pub(crate) async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
