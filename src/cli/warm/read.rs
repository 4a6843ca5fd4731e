//! Groups inputs into batches, each for one request.

use std::collections::VecDeque;
use std::sync::Arc;

use super::source::{Place, SourceItem};
use crate::wire::InputKind;

/// One input as it appears in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LineInput {
    /// Place in the files.
    pub(super) place: Place,
    /// A string or a token array, as JSON.
    pub(super) json: Box<str>,
}

/// Inputs, shared between concurrent requests.
type LineInputs = Arc<[LineInput]>;

/// Inputs of one request: all texts, or all tokens.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WarmBatch {
    pub(super) inputs: LineInputs,
    /// Total bytes that the inputs take in the files.
    pub(super) size: u64,
}

/// Limits of one batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchBounds {
    pub(super) inputs: usize,
    pub(super) bytes: usize,
}

/// The next item from the files.
#[derive(Debug)]
pub(super) enum FileItem {
    Batch(WarmBatch),
    /// A message about a whole file.
    Note(String),
    /// A line that is not a valid input.
    Fault {
        place: Place,
        size: u64,
        cause: &'static str,
    },
    /// The rest is unreadable.
    Unreadable(String),
}

/// Groups the inputs of a source.
pub(super) struct Batches<I> {
    source: I,
    bounds: BatchBounds,
    // One request carries one kind of input, so each kind has a batch of its own.
    texts: PendingBatch,
    tokens: PendingBatch,
    ready: VecDeque<FileItem>,
    is_over: bool,
}

#[derive(Default)]
struct PendingBatch {
    inputs: Vec<LineInput>,
    bytes: usize,
    size: u64,
}

impl<I: Iterator<Item = SourceItem>> Batches<I> {
    pub(super) fn new(source: I, bounds: BatchBounds) -> Self {
        let (texts, tokens, ready) = (PendingBatch::default(), PendingBatch::default(), VecDeque::new());
        Self { source, bounds, texts, tokens, ready, is_over: false }
    }

    /// Returns the next item, or `None` at the end.
    pub(super) fn next_batch(&mut self) -> Option<FileItem> {
        while self.ready.is_empty() && !self.is_over {
            match self.source.next() {
                Some(SourceItem::Input { place, size, json, kind }) => self.add(LineInput { place, json }, size, kind),
                Some(SourceItem::Note(note)) => self.ready.push_back(FileItem::Note(note)),
                Some(SourceItem::Fault { place, size, cause }) => {
                    self.ready.push_back(FileItem::Fault { place, size, cause });
                }
                Some(SourceItem::Unreadable(cause)) => self.end(Some(cause)),
                None => self.end(None),
            }
        }
        self.ready.pop_front()
    }

    fn add(&mut self, input: LineInput, size: u64, kind: InputKind) {
        let pending = match kind {
            InputKind::Text => &mut self.texts,
            InputKind::Tokens => &mut self.tokens,
        };
        // The batch is sent before it becomes too large. A single input over the limit is sent alone.
        if pending.bytes + input.json.len() > self.bounds.bytes {
            self.ready.extend(pending.take());
        }
        // One byte for the comma between inputs.
        pending.bytes += input.json.len() + 1;
        pending.size += size;
        pending.inputs.push(input);
        if pending.inputs.len() >= self.bounds.inputs {
            self.ready.extend(pending.take());
        }
    }

    fn end(&mut self, error: Option<String>) {
        self.is_over = true;
        // Both batches may be incomplete at the end of the files, also after a read error.
        self.ready.extend(self.texts.take());
        self.ready.extend(self.tokens.take());
        self.ready.extend(error.map(FileItem::Unreadable));
    }
}

impl PendingBatch {
    fn take(&mut self) -> Option<FileItem> {
        let Self { inputs, size, .. } = std::mem::take(self);
        (!inputs.is_empty()).then(|| FileItem::Batch(WarmBatch { inputs: inputs.into(), size }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::source::inputs_of;
    use super::*;

    fn read(text: &str, bounds: BatchBounds) -> Vec<FileItem> {
        let mut batches = Batches::new(inputs_of(text, None), bounds);
        std::iter::from_fn(|| batches.next_batch()).collect()
    }

    fn inputs(next: &FileItem) -> Vec<(u64, &str)> {
        match next {
            FileItem::Batch(batch) => batch.inputs.iter().map(|input| (input.place.number, &*input.json)).collect(),
            other => panic!("no batch: {other:?}"),
        }
    }

    #[test]
    fn texts_and_tokens_are_batched_separately_with_their_line_numbers() {
        let text = "\"a\"\n{\"input\":[1,2]}\n{\"text\":\"b\",\"id\":7}\n\n{\"input\":\"c\"}\n";
        let batches = read(text, BatchBounds { inputs: 2, bytes: 1_000 });
        assert_eq!(inputs(&batches[0]), [(1, "\"a\""), (3, "\"b\"")]);
        assert_eq!(inputs(&batches[1]), [(5, "\"c\"")]);
        assert_eq!(inputs(&batches[2]), [(2, "[1,2]")]);
        let size: u64 = batches.iter().map(|next| if let FileItem::Batch(batch) = next { batch.size } else { 0 }).sum();
        assert_eq!(size + 1, text.len() as u64, "all but the blank line");
    }

    #[test]
    fn a_batch_is_bounded_in_bytes() {
        let batches = read("\"aaaa\"\n\"bbbb\"\n\"cccc\"\n", BatchBounds { inputs: 9, bytes: 14 });
        assert_eq!(batches.iter().map(|next| inputs(next).len()).collect::<Vec<_>>(), [2, 1]);
    }
}
