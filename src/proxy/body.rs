//! Body of a response: complete, rendered or compressed piece by piece, or streamed from the upstream.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::admission::Admission;
use super::encoded::EncodedBody;
use super::metering::BypassMeter;
use crate::process::pace::Pace;
use crate::serve::UNSENT_BYTES;
use crate::upstream::UpstreamBody;
use crate::wire::{AnswerCoding, Encoder, Rendering};

/// Largest body that is compressed at once. It takes a few slices of a worker's time at most.
const AT_ONCE_BYTES: usize = 32 * 1024;

/// Body of the response to one request. It holds the request's admission until it is sent.
pub struct ReplyBody {
    content: ReplyContent,
    admission: Option<Admission>,
    /// Counts the cost of a request that passed through.
    meter: Option<Box<BypassMeter>>,
    /// Released when the body is sent.
    _reservation: Option<Arc<dyn Send + Sync>>,
}

enum ReplyContent {
    Whole(Bytes),
    Rendered(Box<RenderedContent>),
    Encoded(Box<EncodedBody>),
    Streamed(UpstreamBody),
}

/// A body that is rendered while it is sent.
struct RenderedContent {
    rendering: Rendering,
    /// The first input that is not rendered yet.
    next: usize,
    sent_bytes: u64,
    pace: Pace,
    /// True if other tasks must run before the next piece.
    ends_slice: bool,
}

impl RenderedContent {
    /// Renders the next piece, if there is one and its slice has begun.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.next >= self.rendering.inputs() {
            return Poll::Ready(None);
        }
        // A quick client takes pieces as fast as they are rendered, so without a pause this thread would do nothing else.
        if std::mem::take(&mut self.ends_slice) {
            Pace::let_others_run(context);
            return Poll::Pending;
        }
        let (piece, until) = self.rendering.piece(self.next);
        self.next = until;
        // `size_hint` must describe the bytes that are still to come.
        self.sent_bytes += piece.len() as u64;
        self.ends_slice = self.pace.ends_slice(piece.len());
        Poll::Ready(Some(piece))
    }
}

impl ReplyBody {
    const fn of(content: ReplyContent) -> Self {
        Self { content, admission: None, meter: None, _reservation: None }
    }

    /// Creates a complete body.
    pub const fn whole(bytes: Bytes) -> Self {
        Self::of(ReplyContent::Whole(bytes))
    }

    /// Creates a body that is rendered while it is sent, so a very large response is never built whole. Holds
    /// `reservation` until it is sent.
    pub fn rendered(rendering: Rendering, reservation: Arc<dyn Send + Sync>) -> Self {
        let content = RenderedContent { rendering, next: 0, sent_bytes: 0, pace: Pace::default(), ends_slice: false };
        let content = ReplyContent::Rendered(Box::new(content));
        Self { _reservation: Some(reservation), ..Self::of(content) }
    }

    /// Creates a body that forwards the upstream's body.
    pub const fn streamed(incoming: UpstreamBody) -> Self {
        Self::of(ReplyContent::Streamed(incoming))
    }

    /// Returns the bytes that the body holds until it is sent, without vectors. Returns `None` for a streamed body.
    pub(super) fn held_bytes(&self) -> Option<usize> {
        match &self.content {
            ReplyContent::Whole(bytes) => Some(bytes.len()),
            ReplyContent::Rendered(content) => {
                let rendering = &content.rendering;
                // hyper accepts another piece while fewer than `UNSENT_BYTES` are unsent, so it may hold more.
                Some((UNSENT_BYTES + 2 * rendering.largest_piece_len()).min(rendering.largest_len()))
            }
            // The memory of a compressed body is reserved before it is compressed.
            ReplyContent::Encoded(_) | ReplyContent::Streamed(_) => None,
        }
    }

    /// Holds `admission` until the body is sent.
    pub(super) fn hold(&mut self, admission: Admission) {
        self.admission = Some(admission);
    }

    /// Shows the body to `meter` while it is sent.
    pub(super) fn meter(&mut self, meter: Box<BypassMeter>) {
        self.meter = Some(meter);
    }

    /// Compresses a complete or rendered body. Returns false if it stays plain: it is streamed, has fewer than
    /// `min_bytes`, or there is no memory for its compression.
    pub(super) fn compress(&mut self, coding: AnswerCoding, min_bytes: usize) -> bool {
        let compressed = match &self.content {
            ReplyContent::Whole(bytes) if bytes.len() < min_bytes => return false,
            // The length of a small body is known before it is sent.
            ReplyContent::Whole(bytes) if bytes.len() <= AT_ONCE_BYTES => {
                ReplyContent::Whole(Encoder::new(coding, Some(bytes.len())).encode(bytes, true).into())
            }
            ReplyContent::Whole(bytes) => {
                let bytes = bytes.clone();
                if !self.reserve(EncodedBody::bytes_for_whole(coding, &bytes)) {
                    return false;
                }
                ReplyContent::Encoded(Box::new(EncodedBody::whole(coding, bytes)))
            }
            ReplyContent::Rendered(content) => {
                let rendering = content.rendering.clone();
                if !self.reserve(EncodedBody::bytes_for_rendered(coding)) {
                    return false;
                }
                ReplyContent::Encoded(Box::new(EncodedBody::rendered(coding, rendering)))
            }
            ReplyContent::Encoded(_) | ReplyContent::Streamed(_) => return false,
        };
        self.content = compressed;
        true
    }

    fn reserve(&mut self, bytes: usize) -> bool {
        self.admission.as_mut().is_some_and(|admission| admission.reserve(bytes))
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
            ReplyContent::Rendered(content) => ready!(content.poll_piece(context)).map(Frame::data).map(Ok),
            ReplyContent::Encoded(body) => ready!(body.poll_part(context)).map(Frame::data).map(Ok),
            ReplyContent::Streamed(incoming) => ready!(Pin::new(incoming).poll_frame(context)),
        };
        if let (Some(meter), Some(Ok(frame))) = (&mut self.meter, &frame)
            && let Some(piece) = frame.data_ref()
        {
            meter.see(piece);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            ReplyContent::Whole(bytes) => bytes.is_empty(),
            ReplyContent::Rendered(content) => content.next >= content.rendering.inputs(),
            ReplyContent::Encoded(body) => body.is_finished(),
            ReplyContent::Streamed(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            ReplyContent::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            ReplyContent::Rendered(content) => content
                .rendering
                .exact_len()
                .map_or_else(SizeHint::default, |bytes| SizeHint::with_exact(bytes.saturating_sub(content.sent_bytes))),
            ReplyContent::Encoded(_) => SizeHint::default(),
            ReplyContent::Streamed(incoming) => incoming.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::process::pace::tests::turns_during;
    use crate::vector::Vector;
    use crate::wire::{Encoding, PREFERRED_CODINGS};

    /// Returns an answer of many megabytes.
    fn large() -> Rendering {
        let vector = Vector::from_components(&[0.012_345_678; 3_072]).expect("it is a vector");
        let (vectors, slots) = ([vector.into()].into(), [0; 512].into());
        let (encoding, model, prompt_tokens) = (Encoding::Float, "m".to_owned(), 1);
        Rendering { vectors, slots, encoding, model, prompt_tokens, members: Vec::new(), mocks: Vec::new() }
    }

    #[tokio::test]
    async fn other_tasks_run_while_a_large_body_is_rendered() {
        let whole = large().to_bytes();
        let (body, turns) = turns_during(ReplyBody::rendered(large(), Arc::new(())).collect()).await;
        assert!(turns >= 2, "{turns} turns");
        assert!(body.expect("it is rendered").to_bytes() == whole);
    }

    #[tokio::test]
    async fn other_tasks_run_while_a_large_body_is_compressed() {
        for coding in PREFERRED_CODINGS {
            let bodies = [EncodedBody::rendered(coding, large()), EncodedBody::whole(coding, large().to_bytes())];
            for body in bodies {
                let body = ReplyBody::of(ReplyContent::Encoded(Box::new(body)));
                let (body, turns) = turns_during(body.collect()).await;
                assert!(turns >= 2, "{coding:?}: {turns} turns");
                assert!(body.expect("it is compressed").to_bytes().len() < 8_000_000, "{coding:?}");
            }
        }
    }
}
