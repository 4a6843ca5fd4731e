//! Decoding of a body with one or more content codings.

use bytes::Bytes;

use super::header::Coding;
use super::inflate::STEP_BYTES;
use super::stage::Stage;
use super::undecodable::Undecodable;

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

impl Decoding {
    /// Starts to decode `input`, the last applied coding first.
    pub fn new(codings: Vec<Coding>, input: Bytes) -> Self {
        let scratch = vec![0; STEP_BYTES].into_boxed_slice();
        Self { codings, stage: None, input, read: 0, output: Vec::new(), scratch }
    }

    /// Decodes the next part. After `Done` or an error the result of a further step is unspecified.
    pub fn step(&mut self) -> Result<Step, Undecodable> {
        // Without a stage, the previous coding is complete or none has begun.
        let Some(stage) = &mut self.stage else {
            let Some(coding) = self.codings.pop() else {
                // All codings are removed, so the input of the next one is the decoded body.
                return Ok(Step::Done(std::mem::take(&mut self.input)));
            };
            self.stage = Some(Stage::new(coding, &self.input)?);
            return Ok(Step::More { added: 0, total: 0 });
        };
        let advance = stage.advance(&self.input[self.read..], &mut self.scratch)?;
        self.read += advance.read;
        self.output.extend_from_slice(&self.scratch[..advance.written]);
        // A coding that is complete before the end of the input may have another member or frame.
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
