//! Inputs that are longer than their model accepts, treated as `limits.long_input` says.

use super::{EmbedJob, Flow};
use crate::config::LongInput;
use crate::upstream::deployment;
use crate::wire::{Input, tokens, write_request};

/// Refusal of an input that is too long, by its place in the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong(pub usize);

impl Flow {
    /// Cuts or refuses the inputs of a job that are too long. Returns the number of cut inputs. A cut input is an input
    /// of its own: its key is that of the shorter text. If memory has no room for the tokenizer, inputs stay as they
    /// are.
    pub async fn fit(&self, job: &mut EmbedJob<'_>) -> Result<usize, TooLong> {
        let model = match &job.request.space.model {
            Some(model) => model.clone(),
            None => deployment(job.origin.uri.path()).unwrap_or_default(),
        };
        let treatment = job.context.config.limits.long_input.of(&model, tokens::counts_with_cl100k(&model));
        if treatment == LongInput::Pass {
            return Ok(0);
        }
        let inputs = &mut job.request.inputs;
        // Nearly all inputs are short enough by their length in bytes.
        let places: Vec<usize> = (0..inputs.len()).filter(|place| inputs[*place].may_be_too_long()).collect();
        if places.is_empty() {
            return Ok(0);
        }
        let suspects: Vec<&Input<'_>> = places.iter().map(|place| &inputs[*place]).collect();
        let lens = self.tokenizer.allowed_lens(&suspects, job.context.now_ms).await.unwrap_or_default();
        let mut cut = 0;
        for (place, len) in places.into_iter().zip(lens).filter(|(_, len)| *len < u32::MAX) {
            if treatment == LongInput::Reject {
                return Err(TooLong(place));
            }
            inputs[place].truncate(len as usize);
            cut += 1;
        }
        if cut > 0 {
            // The request as its caller wrote it would be refused.
            let request = &job.request;
            let inputs: Vec<&Input<'_>> = request.inputs.iter().collect();
            job.body = write_request(&request.space, &inputs, request.form, request.user.as_deref());
        }
        Ok(cut)
    }
}
