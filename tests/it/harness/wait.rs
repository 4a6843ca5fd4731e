//! Waiting for what no channel reports: asked again and again, until a deadline.

use std::time::{Duration, Instant};

use super::stub::DEADLINE;

/// Waits until a condition holds; `what` names it where it never does.
pub(crate) async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
