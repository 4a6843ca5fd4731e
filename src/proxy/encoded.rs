//! A body that is compressed while it is sent.

use std::task::{Context, Poll};

use bytes::Bytes;

use crate::process::pace::Pace;
use crate::serve::UNSENT_BYTES;
use crate::wire::{AnswerCoding, Encoder, Rendering};

/// Size of the parts in which a body is compressed.
const STEP_BYTES: usize = 16 * 1024;

/// Bytes that can be copied in the time in which one byte is compressed, as a rough figure. [`Pace`] counts work in
/// such bytes.
const COPIES_PER_BYTE: usize = 8;

/// A body in a content coding. Only the parts that wait to be sent are in memory.
pub(super) struct EncodedBody {
    /// Plain bytes that are not compressed yet.
    plain: Bytes,
    /// The rest of the body, if it is rendered while it is sent.
    rest: Option<PlainRest>,
    encoder: Encoder,
    pace: Pace,
    /// True if other tasks must run before the next step.
    ends_slice: bool,
}

/// The inputs that are not rendered yet.
struct PlainRest {
    rendering: Rendering,
    next: usize,
}

impl EncodedBody {
    /// Creates a body from a complete plain one.
    pub(super) fn whole(coding: AnswerCoding, plain: Bytes) -> Self {
        let encoder = Encoder::new(coding, Some(plain.len()));
        Self { plain, rest: None, encoder, pace: Pace::default(), ends_slice: false }
    }

    /// Creates a body from an answer that is rendered while it is sent.
    pub(super) fn rendered(coding: AnswerCoding, rendering: Rendering) -> Self {
        let encoder = Encoder::new(coding, None);
        let rest = Some(PlainRest { rendering, next: 0 });
        Self { plain: Bytes::new(), rest, encoder, pace: Pace::default(), ends_slice: false }
    }

    /// Returns an upper bound of the memory for the compression of a complete body, besides that body.
    pub(super) fn bytes_for_whole(coding: AnswerCoding, plain: &Bytes) -> usize {
        Encoder::memory_bytes(coding) + plain.len().min(UNSENT_BYTES + STEP_BYTES)
    }

    /// Returns an upper bound of the memory for the compression of a rendered body, besides that of rendering it.
    pub(super) const fn bytes_for_rendered(coding: AnswerCoding) -> usize {
        Encoder::memory_bytes(coding) + STEP_BYTES
    }

    /// Compresses the next parts until there is something to send. Returns `None` at the end of the body.
    pub(super) fn poll_part(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        while !self.is_finished() {
            // A quick client takes parts as fast as they are compressed, so without a pause this thread would do
            // nothing else.
            if std::mem::take(&mut self.ends_slice) {
                Pace::let_others_run(context);
                return Poll::Pending;
            }
            let step = self.next_step();
            let part = self.encoder.encode(&step, self.is_finished());
            self.ends_slice = self.pace.ends_slice(step.len() * COPIES_PER_BYTE);
            if !part.is_empty() {
                return Poll::Ready(Some(part.into()));
            }
        }
        Poll::Ready(None)
    }

    /// Returns true if the whole body is compressed.
    pub(super) fn is_finished(&self) -> bool {
        self.plain.is_empty() && self.rest.as_ref().is_none_or(|rest| rest.next >= rest.rendering.inputs())
    }

    fn next_step(&mut self) -> Bytes {
        if self.plain.is_empty()
            && let Some(rest) = &mut self.rest
        {
            (self.plain, rest.next) = rest.rendering.piece(rest.next);
        }
        self.plain.split_to(self.plain.len().min(STEP_BYTES))
    }
}
