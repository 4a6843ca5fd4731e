//! The body of an answer: at hand, rendered piece by piece, or streamed from the upstream.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::gate::Admission;
use crate::wire::Rendering;

/// What goes out as the answer to one request. Holds the request's admission until it has gone.
pub struct ReplyBody {
    content: Content,
    admission: Option<Admission>,
    /// Given back when the body has gone.
    _room: Option<Arc<dyn Send + Sync>>,
}

/// What hyper holds at most of an answer that is written while it is sent, with the piece that is next, in bytes.
const RENDERED_BYTES: usize = 4 * 64 * 1024;

enum Content {
    Whole(Bytes),
    Rendered { rendering: Box<Rendering>, next: usize, sent_bytes: u64 },
    Streamed(Incoming),
}

impl ReplyBody {
    const fn of(content: Content) -> Self {
        Self { content, admission: None, _room: None }
    }

    /// A body at hand.
    pub const fn whole(bytes: Bytes) -> Self {
        Self::of(Content::Whole(bytes))
    }

    /// A body that is written while it is sent, so that a very large answer is never built whole. Holds `room` until then.
    pub fn rendered(rendering: Rendering, room: Arc<dyn Send + Sync>) -> Self {
        let content = Content::Rendered { rendering: Box::new(rendering), next: 0, sent_bytes: 0 };
        Self { _room: Some(room), ..Self::of(content) }
    }

    /// A body that is passed on as it comes.
    pub const fn streamed(incoming: Incoming) -> Self {
        Self::of(Content::Streamed(incoming))
    }

    /// What it takes until it has gone, beside vectors; nothing is known of a body that is streamed.
    pub(super) fn held_bytes(&self) -> Option<usize> {
        match &self.content {
            Content::Whole(bytes) => Some(bytes.len()),
            Content::Rendered { .. } => Some(RENDERED_BYTES),
            Content::Streamed(_) => None,
        }
    }

    /// Holds `admission` until the body has gone.
    pub(super) fn hold(&mut self, admission: Admission) {
        self.admission = Some(admission);
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = match &mut self.content {
            Content::Whole(bytes) => {
                Some(std::mem::take(bytes)).filter(|bytes| !bytes.is_empty()).map(Frame::data).map(Ok)
            }
            Content::Rendered { rendering, next, sent_bytes, .. } => {
                let is_next = *next < rendering.inputs();
                is_next.then(|| {
                    let (piece, until) = rendering.piece(*next);
                    *next = until;
                    *sent_bytes += piece.len() as u64;
                    Ok(Frame::data(piece))
                })
            }
            Content::Streamed(incoming) => ready!(Pin::new(incoming).poll_frame(context)),
        };
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(bytes) => bytes.is_empty(),
            Content::Rendered { rendering, next, .. } => *next >= rendering.inputs(),
            Content::Streamed(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Rendered { rendering, sent_bytes, .. } => rendering
                .exact_len()
                .map_or_else(SizeHint::default, |bytes| SizeHint::with_exact(bytes.saturating_sub(*sent_bytes))),
            Content::Streamed(incoming) => incoming.size_hint(),
        }
    }
}
