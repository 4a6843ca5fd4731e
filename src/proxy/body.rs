//! Body of a response: complete, rendered piece by piece, or streamed from the upstream.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::admission::Admission;
use crate::serve::UNSENT_BYTES;
use crate::wire::Rendering;

/// Body of the response to one request. It holds the request's admission until it is sent.
pub struct ReplyBody {
    content: ReplyContent,
    admission: Option<Admission>,
    /// Released when the body is sent.
    _reservation: Option<Arc<dyn Send + Sync>>,
}

enum ReplyContent {
    Whole(Bytes),
    Rendered { rendering: Box<Rendering>, next: usize, sent_bytes: u64 },
    Streamed(Incoming),
}

impl ReplyBody {
    const fn of(content: ReplyContent) -> Self {
        Self { content, admission: None, _reservation: None }
    }

    /// Creates a complete body.
    pub const fn whole(bytes: Bytes) -> Self {
        Self::of(ReplyContent::Whole(bytes))
    }

    /// Creates a body that is rendered while it is sent, so a very large response is never built whole. Holds
    /// `reservation` until it is sent.
    pub fn rendered(rendering: Rendering, reservation: Arc<dyn Send + Sync>) -> Self {
        let content = ReplyContent::Rendered { rendering: Box::new(rendering), next: 0, sent_bytes: 0 };
        Self { _reservation: Some(reservation), ..Self::of(content) }
    }

    /// Creates a body that forwards the upstream's body.
    pub const fn streamed(incoming: Incoming) -> Self {
        Self::of(ReplyContent::Streamed(incoming))
    }

    /// Returns the bytes that the body holds until it is sent, without vectors. Returns `None` for a streamed body.
    pub(super) fn held_bytes(&self) -> Option<usize> {
        match &self.content {
            ReplyContent::Whole(bytes) => Some(bytes.len()),
            ReplyContent::Rendered { rendering, .. } => {
                // hyper accepts another piece while fewer than `UNSENT_BYTES` are unsent, so it may hold more.
                Some((UNSENT_BYTES + 2 * rendering.largest_piece_len()).min(rendering.largest_len()))
            }
            ReplyContent::Streamed(_) => None,
        }
    }

    /// Holds `admission` until the body is sent.
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
            ReplyContent::Whole(bytes) => {
                // The second poll finds an empty body, which ends the stream.
                Some(std::mem::take(bytes)).filter(|bytes| !bytes.is_empty()).map(Frame::data).map(Ok)
            }
            ReplyContent::Rendered { rendering, next, sent_bytes, .. } => {
                let is_next = *next < rendering.inputs();
                is_next.then(|| {
                    let (piece, until) = rendering.piece(*next);
                    *next = until;
                    // `size_hint` must describe the bytes that are still to come.
                    *sent_bytes += piece.len() as u64;
                    Ok(Frame::data(piece))
                })
            }
            ReplyContent::Streamed(incoming) => ready!(Pin::new(incoming).poll_frame(context)),
        };
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            ReplyContent::Whole(bytes) => bytes.is_empty(),
            ReplyContent::Rendered { rendering, next, .. } => *next >= rendering.inputs(),
            ReplyContent::Streamed(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            ReplyContent::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            ReplyContent::Rendered { rendering, sent_bytes, .. } => rendering
                .exact_len()
                .map_or_else(SizeHint::default, |bytes| SizeHint::with_exact(bytes.saturating_sub(*sent_bytes))),
            ReplyContent::Streamed(incoming) => incoming.size_hint(),
        }
    }
}
