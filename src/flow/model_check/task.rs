//! The task that checks the watched spaces in turn.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::check::Checked;
use crate::flow::Flow;

/// Pause between two looks at the clock while any space is watched.
const TICK: Duration = Duration::from_millis(500);

/// Checks the watched spaces in turn, until the process stops.
pub async fn watch_models(flow: Arc<Flow>) {
    loop {
        flow.watch.any().await;
        let config = flow.live.load();
        let due = config.drift.every.and_then(|_| flow.watch.take_due(flow.clock.now_ms()));
        let Some(mut watched) = due else {
            sleep(TICK).await;
            continue;
        };
        if let Some(Checked { result, due_ms }) = watched.check(&flow, &config).await {
            flow.metrics.watch.checked(result, &watched.asked_model, watched.distance);
            watched.due_ms = due_ms;
        }
        flow.watch.put_back(watched);
    }
}
