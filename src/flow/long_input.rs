//! Inputs that are longer than their model accepts, treated as `limits.long_input` says.

use http::Uri;
use tokio::time::Instant;

use super::tokenizer::Unmeasured;
use super::{EmbedJob, Flow};
use crate::config::{Config, LongInput};
use crate::upstream::deployment;
use crate::wire::{EmbedRequest, Input, Space, tokens, write_request};

/// Word for inputs that could not be measured, in errors of both ports.
pub const UNMEASURED: &str = "inputs_unmeasured";

/// Reason why the inputs of a request cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// The input at this place of the request is too long.
    TooLong(usize),
    /// The inputs could not be measured.
    Unmeasured,
}

/// Facts beside a request that decide how long its inputs may be.
#[derive(Clone, Copy, Debug)]
pub struct InputRules<'a> {
    /// The configuration in force for the request.
    pub config: &'a Config,
    /// The upstream's address, which may name the model.
    pub uri: &'a Uri,
    /// Wall-clock time.
    pub now_ms: u64,
    /// Time at which the request ends. Measuring may wait until then.
    pub deadline: Instant,
}

impl InputRules<'_> {
    fn model(&self, space: &Space) -> String {
        match &space.model {
            Some(model) => model.clone(),
            None => deployment(self.uri.path()).unwrap_or_default(),
        }
    }

    /// Returns the treatment of this model's inputs, or `None` if their maximum length is unknown.
    fn treatment(&self, space: &Space) -> Option<LongInput> {
        let model = self.model(space);
        self.config.limits.long_input.of(&model, tokens::counts_with_cl100k(&model))
    }
}

impl Flow {
    /// Cuts or refuses the inputs of a job that are too long. Returns the number of cut inputs.
    pub async fn fit(&self, job: &mut EmbedJob<'_>) -> Result<usize, Unfit> {
        let EmbedJob { context, origin, request, .. } = job;
        let (now_ms, deadline) = (context.now_ms, context.deadline);
        let rules = InputRules { config: &context.config, uri: &origin.uri, now_ms, deadline };
        let cut = self.fit_inputs(request, &rules).await?;
        if cut > 0 {
            // The request as its caller wrote it would be refused.
            let inputs: Vec<&Input<'_>> = request.inputs.iter().collect();
            job.body = write_request(&request.space, &inputs, request.form, request.user.as_deref());
        }
        Ok(cut)
    }

    /// Cuts or refuses the inputs of a request that are too long, and returns the number of cut inputs. A cut input is
    /// an input of its own: its key is that of the shorter text. If memory has no room for the tokenizer, inputs stay as
    /// they are. Every reader of a request calls this before it makes keys.
    pub async fn fit_inputs(&self, request: &mut EmbedRequest<'_>, rules: &InputRules<'_>) -> Result<usize, Unfit> {
        let treatment = rules.treatment(&request.space).unwrap_or_default();
        if treatment == LongInput::Pass {
            return Ok(0);
        }
        let too_long = match self.too_long(&request.inputs, rules).await {
            Ok(too_long) => too_long,
            Err(Unmeasured::NoRoom) => Vec::new(),
            Err(Unmeasured::Late) => return Err(Unfit::Unmeasured),
        };
        if let Some((place, _)) = too_long.first().filter(|_| treatment == LongInput::Reject) {
            return Err(Unfit::TooLong(*place));
        }
        for (place, len) in &too_long {
            request.inputs[*place].truncate(*len);
        }
        Ok(too_long.len())
    }

    /// Returns every input under whose key a vector of this request may be stored: each as it is written, and each that
    /// is too long also as it is cut. `limits.long_input` may have had any value when the vector was stored.
    pub async fn possible_inputs<'r>(
        &self,
        request: &EmbedRequest<'r>,
        rules: &InputRules<'_>,
    ) -> Result<Vec<Input<'r>>, Unfit> {
        let mut inputs = request.inputs.clone();
        let Some(treatment) = rules.treatment(&request.space) else { return Ok(inputs) };
        let too_long = match self.too_long(&request.inputs, rules).await {
            Ok(too_long) => too_long,
            // Without the tokenizer no input was cut, unless memory had more room before.
            Err(Unmeasured::NoRoom) if treatment == LongInput::Pass => Vec::new(),
            Err(Unmeasured::NoRoom | Unmeasured::Late) => return Err(Unfit::Unmeasured),
        };
        inputs.extend(too_long.into_iter().map(|(place, len)| {
            let mut cut = request.inputs[place].clone();
            cut.truncate(len);
            cut
        }));
        Ok(inputs)
    }

    /// Returns the place of each input that is too long, with the length to which it may be cut.
    async fn too_long(&self, inputs: &[Input<'_>], rules: &InputRules<'_>) -> Result<Vec<(usize, usize)>, Unmeasured> {
        // Nearly all inputs are short enough by their length in bytes.
        let places: Vec<usize> = (0..inputs.len()).filter(|place| inputs[*place].may_be_too_long()).collect();
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let suspects: Vec<&Input<'_>> = places.iter().map(|place| &inputs[*place]).collect();
        let lens = self.tokenizer.allowed_lens(&suspects, rules.now_ms, rules.deadline).await?;
        let too_long = places.into_iter().zip(lens).filter(|(_, len)| *len < u32::MAX);
        Ok(too_long.map(|(place, len)| (place, len as usize)).collect())
    }
}
