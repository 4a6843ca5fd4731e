//! Updates of open dashboards: one task takes a sample at every step and sends it to all event streams.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use super::super::AdminContext;
use super::state;
use crate::observe::metrics::{HistorySample, Recent, STEP_SECONDS, Seen};

/// Takes a sample at every step and sends it to the streams. Dropping this future ends the streams.
pub async fn run_updates(context: AdminContext) {
    let _end = context.feed.close_on_drop();
    let mut steps = interval(Duration::from_secs(STEP_SECONDS));
    // Ticks in a burst would give samples that cover almost no time.
    steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick completes at once, and the first sample must cover a whole step.
    steps.tick().await;
    let mut seen = Seen::default();
    loop {
        steps.tick().await;
        let sample = context.metrics.sample();
        let recent = context.metrics.performance().recent(&mut seen);
        context.feed.publish(|| update(&context, Some(&sample), &recent));
    }
}

/// Serializes one event.
pub(super) fn update(context: &AdminContext, sample: Option<&HistorySample>, recent: &[Recent]) -> Bytes {
    let now = state::now(context);
    let id = now["at_ms"].as_u64().unwrap_or_default();
    let data = json!({ "now": now, "sample": sample, "recent": recent });
    // `retry` is the pause in milliseconds before a client of server-sent events reconnects.
    format!("retry: 2000\nid: {id}\nevent: update\ndata: {data}\n\n").into()
}
