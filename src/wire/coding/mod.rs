//! Content codings (RFC 9110, section 8.4.1), decoded in steps of bounded size.

mod gzip;
mod inflate;
mod stage;

#[cfg(test)]
mod tests;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

use stage::Stage;

/// Maximum input that one step reads, and maximum output that it writes.
const STEP_BYTES: usize = 64 * 1024;

/// Maximum number of codings of one body. Each one costs a pass over the body.
const MAX_CODINGS: usize = 3;

/// A content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// `gzip`, `x-gzip`: RFC 1952, one or more members.
    Gzip,
    /// `deflate`: RFC 1950; raw RFC 1951 is accepted because some servers send it.
    Deflate,
    /// `br`: RFC 7932.
    Brotli,
    /// `zstd`: RFC 8878, with the window limit of RFC 9659.
    Zstd,
}

/// Error of a body that does not match its content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body does not match its content coding")]
pub struct Undecodable;

/// Result of one step.
#[derive(Debug)]
pub enum Step {
    /// The body is not decoded yet.
    More {
        /// Bytes that this step wrote.
        added: usize,
        /// Bytes that the current coding has written so far.
        total: usize,
    },
    /// The decoded body.
    Done(Bytes),
}

/// A body that is being decoded. Each step does a bounded amount of work, so the caller can check limits and yield
/// between two steps.
pub struct Decoding {
    /// Codings that remain, in the order in which they were applied.
    codings: Vec<Coding>,
    stage: Option<Stage>,
    input: Bytes,
    read: usize,
    output: Vec<u8>,
    scratch: Box<[u8]>,
}

/// Returns the content codings that these headers name, in the order in which they were applied. The list is empty for
/// a plain body. Returns `None` if a coding is unknown or if there are too many.
pub fn content_codings(headers: &HeaderMap) -> Option<Vec<Coding>> {
    let mut codings = Vec::new();
    for value in headers.get_all(CONTENT_ENCODING) {
        for name in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            let is_plain = name.is_empty() || name.eq_ignore_ascii_case(b"identity");
            if !is_plain {
                codings.push(Coding::named(name)?);
            }
        }
    }
    (codings.len() <= MAX_CODINGS).then_some(codings)
}

impl Coding {
    fn named(name: &[u8]) -> Option<Self> {
        const NAMES: [(&str, Coding); 5] = [
            ("gzip", Coding::Gzip),
            ("x-gzip", Coding::Gzip),
            ("deflate", Coding::Deflate),
            ("br", Coding::Brotli),
            ("zstd", Coding::Zstd),
        ];
        NAMES.iter().find(|(known, _)| name.eq_ignore_ascii_case(known.as_bytes())).map(|(_, coding)| *coding)
    }
}

impl Decoding {
    /// Starts to decode `input`, the last applied coding first.
    pub fn new(codings: Vec<Coding>, input: Bytes) -> Self {
        let scratch = vec![0; STEP_BYTES].into_boxed_slice();
        Self { codings, stage: None, input, read: 0, output: Vec::new(), scratch }
    }

    /// Decodes the next part. After `Done` or an error the result of a further step is unspecified.
    pub fn step(&mut self) -> Result<Step, Undecodable> {
        let Some(stage) = &mut self.stage else {
            let Some(coding) = self.codings.pop() else {
                return Ok(Step::Done(std::mem::take(&mut self.input)));
            };
            self.stage = Some(Stage::new(coding, &self.input)?);
            return Ok(Step::More { added: 0, total: 0 });
        };
        let advance = stage.advance(&self.input[self.read..], &mut self.scratch)?;
        self.read += advance.read;
        self.output.extend_from_slice(&self.scratch[..advance.written]);
        let is_whole = advance.is_complete && self.read == self.input.len();
        if is_whole {
            self.finish_stage();
        } else if advance.read == 0 && advance.written == 0 {
            // The input is truncated, or other bytes follow it.
            return Err(Undecodable);
        }
        let total = if is_whole { self.input.len() } else { self.output.len() };
        Ok(Step::More { added: advance.written, total })
    }

    /// Makes the output the input of the next coding.
    fn finish_stage(&mut self) {
        self.stage = None;
        self.input = std::mem::take(&mut self.output).into();
        self.read = 0;
    }
}
