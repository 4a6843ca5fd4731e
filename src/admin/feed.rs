//! Event stream for open dashboards: each event is serialized once, and every stream sends the same bytes.
//!
//! A slow reader loses its stream instead of delaying others: a stream buffers only a handful of events, and the port's
//! limit on unread responses ends a stream whose peer reads nothing.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use tokio::sync::broadcast::{Receiver, Sender, channel};
use tokio::time::timeout;

use super::streams::{StreamLimit, StreamPermit};
use crate::cache::transfer::Pieces;
use crate::process::errors::BoxError;

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
    streams: StreamLimit,
}

impl Default for Feed {
    fn default() -> Self {
        Self { events: Mutex::new(Some(channel(MAX_WAITING).0)), streams: StreamLimit::default() }
    }
}

impl Feed {
    /// Opens a stream for `peer` that begins with `first`. Returns `None` if too many are open or the feed has ended.
    pub(super) fn open(&self, peer: IpAddr, first: impl FnOnce() -> Bytes) -> Option<Pieces<'static>> {
        let permit = self.streams.take(peer)?;
        // The subscription comes before the first event, so no event between the two is lost.
        let events = self.events().as_ref()?.subscribe();
        let opened = EventStream { first: Some(first()), events, _permit: permit };
        Some(Box::pin(stream::unfold(opened, EventStream::next)))
    }

    /// Sends an event to the open streams. If there are none, it is not created.
    pub(super) fn publish(&self, event: impl FnOnce() -> Bytes) {
        let events = self.events();
        if let Some(events) = events.as_ref().filter(|events| events.receiver_count() > 0) {
            // The send fails if the last reader has just disconnected.
            let _ = events.send(event());
        }
    }

    /// Ends all streams when the guard is dropped.
    pub(super) const fn close_on_drop(&self) -> CloseOnDrop<'_> {
        CloseOnDrop(self)
    }

    fn events(&self) -> MutexGuard<'_, Option<Sender<Bytes>>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends all streams when the task that feeds them ends.
pub(super) struct CloseOnDrop<'a>(&'a Feed);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        // Without a sender, each stream ends after its buffered events.
        self.0.events().take();
    }
}

/// One stream.
struct EventStream {
    first: Option<Bytes>,
    events: Receiver<Bytes>,
    _permit: StreamPermit,
}

impl EventStream {
    async fn next(mut self) -> Option<(Result<Bytes, BoxError>, Self)> {
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
