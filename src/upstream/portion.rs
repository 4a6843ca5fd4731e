//! The work of one request inside a call: cut to size, merged, halved, and handed back with its result.

use std::ops::Range;
use std::sync::Arc;

use http::HeaderMap;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Failure;
use super::caller::Answered;
use crate::tokens;
use crate::traces::{Span, TraceContext};
use crate::vector::Vector;
use crate::wire::{Input, ReadAnswer};

/// One vector that came from the upstream.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The numbers.
    pub vector: Vector,
    /// The input's tokens: exactly where it was alone in its call or is an array of tokens, else its share of the
    /// call's sum by length.
    pub tokens: Option<u32>,
    /// The call that brought it.
    pub call: Arc<CallInfo>,
}

/// What one call's answer said beside its vectors.
#[derive(Debug)]
pub struct CallInfo {
    /// Its headers.
    pub headers: HeaderMap,
    /// The model that answered, as far as it said.
    pub model: Option<String>,
    /// Tokens of the whole call.
    pub prompt_tokens: Option<u64>,
    /// How many inputs it carried.
    pub inputs: usize,
    /// Its place in the trace of the request it was made for.
    pub trace: TraceContext,
}

/// Who waits for inputs.
#[derive(Clone, Debug)]
pub struct Asker {
    /// How long.
    pub deadline: Instant,
    /// In whose trace.
    pub trace: TraceContext,
}

/// The result for some of the inputs that were submitted.
#[derive(Debug)]
pub struct Portion {
    /// Which inputs, by their place in the submitted list.
    pub places: Range<usize>,
    /// Those inputs, handed back.
    pub inputs: Vec<Input<'static>>,
    /// Their vectors, or why there are none.
    pub result: Result<Vec<Fetched>, Arc<Failure>>,
}

/// Inputs of one request that travel together.
pub(super) struct Piece {
    pub(super) first_place: usize,
    pub(super) inputs: Vec<Input<'static>>,
    pub(super) deadline: Instant,
    pub(super) trace: TraceContext,
    /// Its wait in its lane, while that goes on.
    pub(super) queued: Span,
    pub(super) results: mpsc::UnboundedSender<Portion>,
}

/// The most that one call may carry.
#[derive(Clone, Copy)]
pub(super) struct CallLimits {
    pub(super) max_inputs: usize,
    pub(super) max_tokens: usize,
}

/// Cuts a list of inputs into runs that fit one call each.
pub(super) fn cut<T>(
    inputs: Vec<Input<'static>>,
    limits: CallLimits,
    make: impl Fn(usize, Vec<Input<'static>>) -> T,
) -> Vec<T> {
    let (mut runs, mut run, mut first_place, mut tokens) = (Vec::new(), Vec::new(), 0, 0);
    for (place, input) in inputs.into_iter().enumerate() {
        let more = input.estimated_tokens();
        if !run.is_empty() && (run.len() >= limits.max_inputs || tokens + more > limits.max_tokens) {
            runs.push(make(first_place, std::mem::take(&mut run)));
            (first_place, tokens) = (place, 0);
        }
        tokens += more;
        run.push(input);
    }
    if !run.is_empty() {
        runs.push(make(first_place, run));
    }
    runs
}

pub(super) fn estimated_tokens(inputs: &[Input<'_>]) -> usize {
    inputs.iter().map(Input::estimated_tokens).sum()
}

/// Two halves of a batch: by requests where there are several, else by inputs.
pub(super) fn halve(mut batch: Vec<Piece>) -> (Vec<Piece>, Vec<Piece>) {
    if batch.len() > 1 {
        let right = batch.split_off(batch.len() / 2);
        return (batch, right);
    }
    let rights = batch
        .iter_mut()
        .map(|piece| {
            let middle = piece.inputs.len() / 2;
            Piece {
                first_place: piece.first_place + middle,
                inputs: piece.inputs.split_off(middle),
                deadline: piece.deadline,
                trace: piece.trace.clone(),
                queued: Span::default(),
                results: piece.results.clone(),
            }
        })
        .collect();
    (batch, rights)
}

pub(super) fn hand_out(batch: Vec<Piece>, answered: Answered) {
    let Answered { answer, reply, trace } = answered;
    let inputs: Vec<&Input<'_>> = batch.iter().flat_map(|piece| &piece.inputs).collect();
    let mut tokens = token_shares(&inputs, &answer).into_iter();
    let call = Arc::new(CallInfo {
        headers: reply.headers,
        model: answer.model,
        prompt_tokens: answer.prompt_tokens,
        inputs: answer.vectors.len(),
        trace,
    });
    let mut vectors = answer.vectors.into_iter();
    for piece in batch {
        let mine = vectors.by_ref().zip(tokens.by_ref()).take(piece.inputs.len());
        let fetched = mine.map(|(vector, tokens)| Fetched { vector, tokens, call: Arc::clone(&call) }).collect();
        piece.send(Ok(fetched));
    }
}

/// What each input cost. A call tells only the sum.
fn token_shares(inputs: &[&Input<'_>], answer: &ReadAnswer) -> Vec<Option<u32>> {
    match (inputs, answer.prompt_tokens) {
        ([_], Some(total)) => vec![u32::try_from(total).ok()],
        ([Input::Tokens(_), ..], _) => inputs.iter().map(|input| Some(input.counted_tokens())).collect(),
        (_, Some(total)) => {
            let weights: Vec<usize> = inputs.iter().map(|input| input.estimated_tokens()).collect();
            tokens::apportion(total, &weights).into_iter().map(Some).collect()
        }
        (_, None) => vec![None; inputs.len()],
    }
}

pub(super) fn fail(batch: Vec<Piece>, failure: Failure) {
    let failure = Arc::new(failure);
    for piece in batch {
        piece.send(Err(Arc::clone(&failure)));
    }
}

impl Piece {
    pub(super) fn leave_queue(&mut self) {
        self.queued = Span::default();
    }

    fn send(self, result: Result<Vec<Fetched>, Arc<Failure>>) {
        let places = self.first_place..self.first_place + self.inputs.len();
        // Who submitted the piece stays until every portion has come; if it is gone, the process is stopping.
        drop(self.results.send(Portion { places, inputs: self.inputs, result }));
    }
}
