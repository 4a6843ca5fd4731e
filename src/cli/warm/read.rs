//! Groups the lines of a file into batches, each for one request.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, BufRead};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use serde_json::value::RawValue;

use crate::process::lines::{Line, NumberedLines};
use crate::wire::InputKind;

/// Longest line. The longest input of a known model is a tenth of it.
const MAX_LINE_BYTES: usize = 1 << 20;

/// One input as it appears in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LineInput {
    /// Line number.
    pub(super) number: u64,
    /// A string or a token array, as JSON.
    pub(super) json: Box<str>,
}

/// Inputs, shared between concurrent requests.
type LineInputs = Arc<[LineInput]>;

/// Inputs of one request: all texts, or all tokens.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WarmBatch {
    pub(super) inputs: LineInputs,
    /// Total bytes of the lines.
    pub(super) size: u64,
}

/// Limits of one batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchBounds {
    pub(super) inputs: usize,
    pub(super) bytes: usize,
}

/// The next item from the file.
#[derive(Debug)]
pub(super) enum FileItem {
    Batch(WarmBatch),
    /// A message about the whole file.
    Note(&'static str),
    /// A line that is not a valid input.
    Fault {
        number: u64,
        size: u64,
        cause: &'static str,
    },
    /// The rest of the file is unreadable.
    Unreadable(io::Error),
}

/// Format of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineFormat {
    /// Each line is JSON.
    Json,
    /// Each line is plain text.
    Plain,
}

/// Reader of batches.
pub(super) struct Batches<R> {
    lines: NumberedLines<R>,
    bounds: BatchBounds,
    /// `None` until the first line has determined it.
    format: Option<LineFormat>,
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

#[derive(Deserialize)]
struct LineFields<'a> {
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
}

impl<R: BufRead> Batches<R> {
    /// Creates a reader. Without a format, the first line decides: a line that is not JSON starts a file of plain
    /// texts.
    pub(super) fn new(from: R, bounds: BatchBounds, format: Option<LineFormat>) -> Self {
        let lines = NumberedLines::new(from, MAX_LINE_BYTES);
        let (texts, tokens, ready) = (PendingBatch::default(), PendingBatch::default(), VecDeque::new());
        Self { lines, bounds, format, texts, tokens, ready, is_over: false }
    }

    /// Returns the next item, or `None` at the end.
    pub(super) fn next_batch(&mut self) -> Option<FileItem> {
        while self.ready.is_empty() && !self.is_over {
            match self.lines.next_line() {
                Ok(Some(line)) => self.take_in(&line),
                Ok(None) => self.end(None),
                Err(error) => self.end(Some(error)),
            }
        }
        self.ready.pop_front()
    }

    fn take_in(&mut self, line: &Line) {
        let (number, size) = (line.number, line.size);
        let format = self.format(line);
        match read_line(line, format) {
            Err(cause) => self.ready.push_back(FileItem::Fault { number, size, cause }),
            Ok((json, kind)) => {
                let pending = match kind {
                    InputKind::Text => &mut self.texts,
                    InputKind::Tokens => &mut self.tokens,
                };
                // The batch is sent before it becomes too large. A single input over the limit is sent alone.
                if pending.bytes + json.len() > self.bounds.bytes {
                    self.ready.extend(pending.take());
                }
                // One byte for the comma between inputs.
                pending.bytes += json.len() + 1;
                pending.size += size;
                pending.inputs.push(LineInput { number, json: json.into_owned().into() });
                if pending.inputs.len() >= self.bounds.inputs {
                    self.ready.extend(pending.take());
                }
            }
        }
    }

    fn format(&mut self, line: &Line) -> LineFormat {
        if let Some(format) = self.format {
            return format;
        }
        let format = LineFormat::of(line);
        if format == LineFormat::Plain {
            self.ready.push_back(FileItem::Note("the file is read as plain text: one text a line"));
        }
        *self.format.insert(format)
    }

    fn end(&mut self, error: Option<io::Error>) {
        self.is_over = true;
        // Both batches may be incomplete at the end of the file, also after a read error.
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

impl LineFormat {
    /// Returns the format of a file that begins with this line. A damaged JSON object is not taken for plain text.
    fn of(line: &Line) -> Self {
        let text = line.bytes.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok()).map(str::trim);
        let is_json = |text: &str| text.starts_with('{') || serde_json::from_str::<IgnoredAny>(text).is_ok();
        if text.is_none_or(is_json) { Self::Json } else { Self::Plain }
    }
}

/// Returns the JSON of a line's input, and its kind.
fn read_line(line: &Line, format: LineFormat) -> Result<(Cow<'_, str>, InputKind), &'static str> {
    let bytes = line.bytes.as_deref().ok_or("it is longer than 1 MiB")?;
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
    match format {
        LineFormat::Json => read_json(text.trim()).map(|(json, kind)| (json.into(), kind)),
        LineFormat::Plain => {
            let text = text.trim_end_matches(['\r', '\n']);
            // Only the first line can begin with a byte order mark.
            let text = if line.number == 1 { text.trim_start_matches('\u{feff}') } else { text };
            Ok((json!(text).to_string().into(), InputKind::Text))
        }
    }
}

fn read_json(text: &str) -> Result<(&str, InputKind), &'static str> {
    let input = if text.starts_with('{') {
        let fields: LineFields<'_> = serde_json::from_str(text).map_err(|_| "it is not JSON")?;
        match (fields.text, fields.input) {
            (Some(input), None) | (None, Some(input)) => input.get(),
            (Some(_), Some(_)) => return Err("it has both text and input"),
            (None, None) => return Err("it has neither text nor input"),
        }
    } else {
        text
    };
    Ok((input, kind_of(input)?))
}

fn kind_of(input: &str) -> Result<InputKind, &'static str> {
    if input.starts_with('"') {
        // An unpaired surrogate is also invalid.
        let text: String = serde_json::from_str(input).map_err(|_| "it is not JSON")?;
        if text.is_empty() { Err("the text is empty") } else { Ok(InputKind::Text) }
    } else if input.starts_with('[') {
        let tokens: Vec<u32> = serde_json::from_str(input).map_err(|_| "it is not an array of tokens")?;
        if tokens.is_empty() { Err("the array of tokens is empty") } else { Ok(InputKind::Tokens) }
    } else {
        Err("it is neither a text nor an array of tokens")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, bounds: BatchBounds) -> Vec<FileItem> {
        let mut batches = Batches::new(text.as_bytes(), bounds, None);
        std::iter::from_fn(|| batches.next_batch()).collect()
    }

    fn inputs(next: &FileItem) -> Vec<(u64, &str)> {
        match next {
            FileItem::Batch(batch) => batch.inputs.iter().map(|input| (input.number, &*input.json)).collect(),
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

    #[test]
    fn an_invalid_line_is_reported_with_its_number_and_cause() {
        let huge = "x".repeat(MAX_LINE_BYTES + 1);
        let cases = [
            ("\"\"", "the text is empty"),
            ("{\"input\":[]}", "the array of tokens is empty"),
            ("{\"input\":[1,\"a\"]}", "it is not an array of tokens"),
            ("{\"input\":[-1]}", "it is not an array of tokens"),
            ("{\"input\":7}", "it is neither a text nor an array of tokens"),
            ("{\"text\":\"a\",\"input\":\"b\"}", "it has both text and input"),
            ("{\"body\":\"a\"}", "it has neither text nor input"),
            ("{\"text\":\"a\"", "it is not JSON"),
            ("\"a", "it is not JSON"),
            ("\"\\ud800\"", "it is not JSON"),
            ("plain", "it is neither a text nor an array of tokens"),
            ("7", "it is neither a text nor an array of tokens"),
            (&huge, "it is longer than 1 MiB"),
        ];
        for (line, expected) in cases {
            let bounds = BatchBounds { inputs: 9, bytes: 1_000 };
            let mut batches = Batches::new(format!("\n{line}\n").leak().as_bytes(), bounds, Some(LineFormat::Json));
            let read: Vec<FileItem> = std::iter::from_fn(|| batches.next_batch()).collect();
            assert!(
                matches!(&read[..], [FileItem::Fault { number: 2, cause, .. }] if *cause == expected),
                "{expected}: {read:?}"
            );
        }
    }

    #[test]
    fn a_file_whose_first_line_is_not_json_is_plain_text() {
        let bounds = BatchBounds { inputs: 9, bytes: 1_000 };
        let batches = read("\u{feff}A \"quoted\" word\r\n\n  two\n\"three\"\n", bounds);
        assert!(matches!(batches[0], FileItem::Note(_)), "{batches:?}");
        let expected = [(1, r#""A \"quoted\" word""#), (3, r#""  two""#), (4, r#""\"three\"""#)];
        assert_eq!(inputs(&batches[1]), expected);
        for json in ["\"a\"\nplain\n", "{\"text\":\n", "[1]\n", "7\n"] {
            assert!(!matches!(read(json, bounds)[0], FileItem::Note(_)), "{json} is JSON");
        }
    }
}
