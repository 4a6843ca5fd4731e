//! Lines of a file into batches, each of what one request may ask together.

use std::collections::VecDeque;
use std::io::{self, BufRead};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Inputs;
use crate::lines::{Line, Lines};
use crate::wire::InputKind;

/// Longest line. The longest input of a known model is a tenth of it.
const MAX_LINE_BYTES: usize = 1 << 20;

/// One input, as it stands in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Input {
    /// Its line.
    pub(super) number: u64,
    /// A string or a token array, as JSON.
    pub(super) json: Box<str>,
}

/// Inputs that are asked for together: all texts, or all tokens.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) inputs: Inputs,
    /// Bytes of their lines.
    pub(super) size: u64,
}

/// What one batch may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchBounds {
    pub(super) inputs: usize,
    pub(super) bytes: usize,
}

/// What is read next.
#[derive(Debug)]
pub(super) enum Next {
    Batch(Batch),
    /// A line that is no input.
    Fault {
        number: u64,
        size: u64,
        cause: &'static str,
    },
    /// The file cannot be read any further.
    Unreadable(io::Error),
}

/// Reads batches.
pub(super) struct Batches<R> {
    lines: Lines<R>,
    bounds: BatchBounds,
    texts: Gathered,
    tokens: Gathered,
    ready: VecDeque<Next>,
    is_over: bool,
}

#[derive(Default)]
struct Gathered {
    inputs: Vec<Input>,
    bytes: usize,
    size: u64,
}

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
}

impl<R: BufRead> Batches<R> {
    pub(super) fn new(from: R, bounds: BatchBounds) -> Self {
        let lines = Lines::new(from, MAX_LINE_BYTES);
        let (texts, tokens, ready) = (Gathered::default(), Gathered::default(), VecDeque::new());
        Self { lines, bounds, texts, tokens, ready, is_over: false }
    }

    /// The next batch or fault; nothing at the end.
    pub(super) fn next_batch(&mut self) -> Option<Next> {
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
        match read_line(line.bytes.as_deref()) {
            Err(cause) => self.ready.push_back(Next::Fault { number, size, cause }),
            Ok((json, kind)) => {
                let gathered = match kind {
                    InputKind::Text => &mut self.texts,
                    InputKind::Tokens => &mut self.tokens,
                };
                if gathered.bytes + json.len() > self.bounds.bytes {
                    self.ready.extend(gathered.take());
                }
                gathered.bytes += json.len() + 1;
                gathered.size += size;
                gathered.inputs.push(Input { number, json: json.into() });
                if gathered.inputs.len() >= self.bounds.inputs {
                    self.ready.extend(gathered.take());
                }
            }
        }
    }

    fn end(&mut self, error: Option<io::Error>) {
        self.is_over = true;
        self.ready.extend(self.texts.take());
        self.ready.extend(self.tokens.take());
        self.ready.extend(error.map(Next::Unreadable));
    }
}

impl Gathered {
    fn take(&mut self) -> Option<Next> {
        let Self { inputs, size, .. } = std::mem::take(self);
        (!inputs.is_empty()).then(|| Next::Batch(Batch { inputs: inputs.into(), size }))
    }
}

/// The JSON of a line's input, and what it is.
fn read_line(bytes: Option<&[u8]>) -> Result<(&str, InputKind), &'static str> {
    let bytes = bytes.ok_or("it is longer than 1 MiB")?;
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8")?.trim();
    let input = if text.starts_with('{') {
        let fields: Fields<'_> = serde_json::from_str(text).map_err(|_| "it is not JSON")?;
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
        // Half of a surrogate pair is no text either.
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

    fn read(text: &str, bounds: BatchBounds) -> Vec<Next> {
        let mut batches = Batches::new(text.as_bytes(), bounds);
        std::iter::from_fn(|| batches.next_batch()).collect()
    }

    fn inputs(next: &Next) -> Vec<(u64, &str)> {
        match next {
            Next::Batch(batch) => batch.inputs.iter().map(|input| (input.number, &*input.json)).collect(),
            other => panic!("no batch: {other:?}"),
        }
    }

    #[test]
    fn texts_and_tokens_go_apart_and_keep_their_lines() {
        let text = "\"a\"\n{\"input\":[1,2]}\n{\"text\":\"b\",\"id\":7}\n\n{\"input\":\"c\"}\n";
        let batches = read(text, BatchBounds { inputs: 2, bytes: 1_000 });
        assert_eq!(inputs(&batches[0]), [(1, "\"a\""), (3, "\"b\"")]);
        assert_eq!(inputs(&batches[1]), [(5, "\"c\"")]);
        assert_eq!(inputs(&batches[2]), [(2, "[1,2]")]);
        let size: u64 = batches.iter().map(|next| if let Next::Batch(batch) = next { batch.size } else { 0 }).sum();
        assert_eq!(size + 1, text.len() as u64, "all but the blank line");
    }

    #[test]
    fn a_batch_is_bounded_in_bytes() {
        let batches = read("\"aaaa\"\n\"bbbb\"\n\"cccc\"\n", BatchBounds { inputs: 9, bytes: 14 });
        assert_eq!(batches.iter().map(|next| inputs(next).len()).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn a_line_that_is_no_input_is_named_with_its_cause() {
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
            (&huge, "it is longer than 1 MiB"),
        ];
        for (line, expected) in cases {
            let read = read(&format!("\n{line}\n"), BatchBounds { inputs: 9, bytes: 1_000 });
            assert!(
                matches!(&read[..], [Next::Fault { number: 2, cause, .. }] if *cause == expected),
                "{expected}: {read:?}"
            );
        }
    }
}
