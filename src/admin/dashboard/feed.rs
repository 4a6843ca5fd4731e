//! Event stream for open dashboards: one task serializes each event once, and every stream sends the same bytes.
//!
//! A slow reader loses its stream instead of delaying others: a stream buffers only a handful of events, and the port's
//! limit on unread responses ends a stream whose peer reads nothing.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use serde_json::json;
use tokio::sync::broadcast::{Receiver, Sender, channel};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::super::{AdminContext, Pieces};
use super::places::{Place, Places};
use super::state;
use crate::observe::metrics::{Recent, STEP_SECONDS, Sample, Seen};

/// The type of an event stream.
pub(super) const CONTENT_TYPE: &str = "text/event-stream";

/// Events buffered for each reader; a reader that misses an event loses its stream.
const MAX_WAITING: usize = 4;
/// Longest time without any data on a stream.
const HEARTBEAT: Duration = Duration::from_secs(15);
const HEARTBEAT_COMMENT: &[u8] = b": heartbeat\n\n";

/// Event channel and permits of its readers.
#[derive(Debug)]
pub struct Feed {
    /// `None` once the feed has ended.
    events: Mutex<Option<Sender<Bytes>>>,
    places: Places,
}

impl Default for Feed {
    fn default() -> Self {
        Self { events: Mutex::new(Some(channel(MAX_WAITING).0)), places: Places::default() }
    }
}

impl Feed {
    /// Takes a sample at every step and sends it to the streams. Dropping this future ends the streams.
    pub async fn run(context: AdminContext) {
        let _end = End(&context.feed);
        let mut steps = interval(Duration::from_secs(STEP_SECONDS));
        steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick completes at once, and the first sample must cover a whole step.
        steps.tick().await;
        let mut seen = Seen::default();
        loop {
            steps.tick().await;
            let sample = context.metrics.sample();
            let recent = context.metrics.performance().recent(&mut seen);
            context.feed.tell(|| update(&context, Some(&sample), &recent));
        }
    }

    /// Opens a stream for `peer` that begins with `first`. Returns `None` if too many are open or the feed has ended.
    pub(super) fn open(&self, peer: IpAddr, first: impl FnOnce() -> Bytes) -> Option<Pieces<'static>> {
        let place = self.places.take(peer)?;
        let events = self.events().as_ref()?.subscribe();
        let reader = Reader { first: Some(first()), events, _place: place };
        Some(Box::pin(stream::unfold(reader, Reader::next)))
    }

    fn tell(&self, event: impl FnOnce() -> Bytes) {
        let events = self.events();
        if let Some(events) = events.as_ref().filter(|events| events.receiver_count() > 0) {
            // The send fails if the last reader has just disconnected.
            let _ = events.send(event());
        }
    }

    fn events(&self) -> MutexGuard<'_, Option<Sender<Bytes>>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends all streams when the task that feeds them ends.
struct End<'a>(&'a Feed);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.events().take();
    }
}

/// One stream.
struct Reader {
    first: Option<Bytes>,
    events: Receiver<Bytes>,
    _place: Place,
}

impl Reader {
    async fn next(mut self) -> Option<(Result<Bytes, super::super::BoxError>, Self)> {
        if let Some(first) = self.first.take() {
            return Some((Ok(first), self));
        }
        match timeout(HEARTBEAT, self.events.recv()).await {
            Ok(Ok(event)) => Some((Ok(event), self)),
            // The feed has ended, or this reader was too slow.
            Ok(Err(_)) => None,
            Err(_) => Some((Ok(Bytes::from_static(HEARTBEAT_COMMENT)), self)),
        }
    }
}

/// Serializes one event.
pub(super) fn update(context: &AdminContext, sample: Option<&Sample>, recent: &[Recent]) -> Bytes {
    let now = state::now(context);
    let id = now["at_ms"].as_u64().unwrap_or_default();
    let data = json!({ "now": now, "sample": sample, "recent": recent });
    format!("retry: 2000\nid: {id}\nevent: update\ndata: {data}\n\n").into()
}
