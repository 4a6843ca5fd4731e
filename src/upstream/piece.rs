//! Pieces of requests. A piece holds inputs of one request that are sent in one call, alone or with pieces of other
//! requests. It is cut to size, merged, halved, and returned with its result. A piece of a request that was cut is also
//! called a part.

use std::ops::Range;
use std::sync::Arc;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::answered::{Answered, CallInfo};
use super::sizing::Load;
use super::{Failure, OwnRequest};
use crate::config::Priority;
use crate::key::Key;
use crate::observe::traces::{Span, TraceContext};
use crate::vector::packed::Packed;
use crate::wire::Input;
use crate::wire::tokens;

/// A vector that came from the upstream.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The numbers, as they arrived.
    pub vector: Packed,
    /// Tokens of the input, if known. They are exact if the input was alone in its call, or if it is a token array and
    /// the call's sum does not contradict its length. Otherwise they are its share of the call's sum by length.
    pub tokens: Option<u32>,
    /// The call that brought it.
    pub call: Arc<CallInfo>,
}

/// Number of a submission of inputs.
pub type Submission = u64;

/// A request that waits for inputs.
#[derive(Clone, Debug)]
pub struct Waiter {
    /// Time until which it waits.
    pub deadline: Instant,
    /// Hash of the credential that the request came with; fairness among callers is based on it.
    pub caller: Key,
    /// Priority of its calls.
    pub priority: Priority,
    /// Trace context of the request.
    pub trace: TraceContext,
}

/// Missing inputs of one request, all of one kind.
#[derive(Debug)]
pub struct Missing {
    /// The inputs.
    pub inputs: Vec<Input<'static>>,
    /// For each input, its place among the distinct inputs of the request.
    pub places: Vec<u32>,
    /// The request.
    pub own: Arc<OwnRequest>,
}

/// Result of one piece: some of the submitted inputs with their vectors or their failure.
#[derive(Debug)]
pub struct PieceResult {
    /// Places of these inputs in the submitted list.
    pub places: Range<usize>,
    /// These inputs, returned to the submitter.
    pub inputs: Vec<Input<'static>>,
    /// Their vectors, or the failure.
    pub result: Result<Vec<Fetched>, Arc<Failure>>,
}

/// Report about submitted inputs.
#[derive(Debug)]
pub enum Report {
    /// The result for some of them.
    Result(PieceResult),
    /// A call exceeds `upstream.headers_timeout` and continues.
    Late,
}

/// Inputs of one request that are sent together, and the way back to the request.
pub(super) struct Piece {
    /// Number of the submission that it is a part of.
    pub(super) ticket: Submission,
    pub(super) first_place: usize,
    pub(super) missing: Missing,
    pub(super) waiter: Waiter,
    /// Span of its wait in the lane, while it waits.
    pub(super) queued: Span,
    /// Notified when inputs of its submission leave the lane.
    pub(super) left: Arc<Notify>,
    pub(super) results: mpsc::UnboundedSender<Report>,
}

impl Piece {
    /// Ends the wait in the lane.
    pub(super) fn leave_queue(&mut self) {
        self.queued = Span::default();
        self.left.notify_waiters();
    }

    /// Returns its inputs.
    pub(super) fn inputs(&self) -> &[Input<'static>] {
        &self.missing.inputs
    }

    /// Returns the whole request as its caller wrote it.
    pub(super) fn own(&self) -> &OwnRequest {
        &self.missing.own
    }

    /// Returns true if it contains all distinct inputs of its request.
    pub(super) fn is_whole(&self) -> bool {
        self.missing.inputs.len() == self.own().distinct()
    }

    /// Returns the number of its inputs and the estimate of their tokens, which limit what a call may carry.
    pub(super) fn load(&self) -> Load {
        let tokens = self.inputs().iter().map(Input::estimated_tokens).sum();
        Load { inputs: self.inputs().len(), tokens }
    }

    /// Returns how many of its first inputs fit these limits; at least one.
    pub(super) fn fitting(&self, max_inputs: usize, max_tokens: usize) -> usize {
        let within = |tokens: &mut usize, input: &Input<'_>| {
            *tokens += input.estimated_tokens();
            Some(*tokens <= max_tokens)
        };
        let inputs = self.inputs().iter().take(max_inputs).scan(0, within);
        // An input that exceeds the limit by itself is sent alone, so the upstream decides about it.
        inputs.take_while(|fits| *fits).count().max(1)
    }

    /// Splits off all inputs after the first `inputs`.
    pub(super) fn split_off(&mut self, inputs: usize) -> Self {
        let missing = Missing {
            inputs: self.missing.inputs.split_off(inputs),
            places: self.missing.places.split_off(inputs),
            own: Arc::clone(&self.missing.own),
        };
        Self {
            ticket: self.ticket,
            first_place: self.first_place + inputs,
            missing,
            waiter: self.waiter.clone(),
            // The first part ends the span of the wait in the queue; the rest has none.
            queued: Span::default(),
            left: Arc::clone(&self.left),
            results: self.results.clone(),
        }
    }

    /// Appends inputs that were split off before.
    pub(super) fn rejoin(&mut self, mut rest: Self) {
        self.missing.inputs.append(&mut rest.missing.inputs);
        self.missing.places.append(&mut rest.missing.places);
    }

    /// Returns the inputs with their result to the request.
    pub(super) fn send(self, result: Result<Vec<Fetched>, Arc<Failure>>) {
        let places = self.first_place..self.first_place + self.inputs().len();
        // The submitter stays until all results have arrived. If it is gone, the process is stopping.
        drop(self.results.send(Report::Result(PieceResult { places, inputs: self.missing.inputs, result })));
    }

    /// Tells the request that its call exceeds `upstream.headers_timeout` and continues.
    pub(super) fn report_late(&self) {
        drop(self.results.send(Report::Late));
    }
}

/// Returns the sum of the loads of several pieces.
pub(super) fn load_of(batch: &[Piece]) -> Load {
    batch
        .iter()
        .map(Piece::load)
        .fold(Load::default(), |sum, load| Load { inputs: sum.inputs + load.inputs, tokens: sum.tokens + load.tokens })
}

/// Splits a batch in two halves: by requests if there are several, else by inputs.
pub(super) fn halve(mut batch: Vec<Piece>) -> [Vec<Piece>; 2] {
    if batch.len() > 1 {
        let right = batch.split_off(batch.len() / 2);
        return [batch, right];
    }
    // Only calls of at least two inputs are halved, so neither half is empty.
    let rights = batch.iter_mut().map(|piece| piece.split_off(piece.inputs().len() / 2)).collect();
    [batch, rights]
}

/// Distributes the vectors of a call in vecho's own form to its pieces.
pub(super) fn hand_out(batch: Vec<Piece>, answered: Answered) {
    let inputs: Vec<&Input<'_>> = batch.iter().flat_map(Piece::inputs).collect();
    // The upstream reports tokens for the whole call, so they are divided over all pieces at once.
    let mut tokens = token_shares(&inputs, answered.prompt_tokens).into_iter();
    let mut vectors = answered.vectors.into_iter().map(Packed::from);
    for piece in batch {
        let mine = vectors.by_ref().zip(tokens.by_ref()).take(piece.inputs().len());
        let call = &answered.call;
        let fetched = mine.map(|(vector, tokens)| Fetched { vector, tokens, call: Arc::clone(call) }).collect();
        piece.send(Ok(fetched));
    }
}

/// Distributes the vectors of the caller's own request to one of its pieces.
pub(super) fn hand_out_own(piece: Piece, answered: &Answered) {
    let tokens = own_token_shares(&piece, answered.prompt_tokens);
    let own = piece.own();
    // Several pieces may share this answer, so vectors are cloned, which copies no bytes.
    let vector = |place: &u32| Packed::from(answered.vectors[own.firsts[*place as usize]].clone());
    let fetched = piece.missing.places.iter().map(vector).zip(tokens);
    let call = &answered.call;
    let fetched = fetched.map(|(vector, tokens)| Fetched { vector, tokens, call: Arc::clone(call) }).collect();
    piece.send(Ok(fetched));
}

/// Returns the share of each input of a piece in the token sum of its whole request. The shares are unknown if the
/// piece lacks some inputs of the request.
fn own_token_shares(piece: &Piece, prompt_tokens: Option<u64>) -> Vec<Option<u32>> {
    let inputs: Vec<&Input<'_>> = piece.inputs().iter().collect();
    let own = piece.own();
    if !own.has_repetitions() && piece.is_whole() {
        return token_shares(&inputs, prompt_tokens);
    }
    if !piece.is_whole() {
        return token_shares(&inputs, None);
    }
    // The upstream counts each repetition, so the sum is divided over all positions of the body.
    let repeated: Vec<&Input<'_>> = own.slots.iter().map(|slot| inputs[*slot as usize]).collect();
    let shares = token_shares(&repeated, prompt_tokens);
    own.firsts.iter().map(|first| shares[*first]).collect()
}

/// Returns the tokens of each input, as far as they follow from the sum that a call reports.
fn token_shares(inputs: &[&Input<'_>], prompt_tokens: Option<u64>) -> Vec<Option<u32>> {
    match (inputs, prompt_tokens) {
        ([_], Some(total)) => vec![u32::try_from(total).ok()],
        ([Input::Tokens(_), ..], None) => inputs.iter().map(|input| Some(input.counted_tokens())).collect(),
        (_, Some(total)) => {
            let weights: Vec<usize> = inputs.iter().map(|input| input.estimated_tokens()).collect();
            // If the sum equals the lengths of the token arrays, the service counts nothing else, and
            // each has its length.
            if matches!(inputs, [Input::Tokens(_), ..]) && weights.iter().sum::<usize>() as u64 == total {
                return inputs.iter().map(|input| Some(input.counted_tokens())).collect();
            }
            tokens::apportion(total, &weights).into_iter().map(Some).collect()
        }
        (_, None) => vec![None; inputs.len()],
    }
}

/// Returns all pieces of a call to their requests with the same failure.
pub(super) fn fail(batch: Vec<Piece>, failure: Failure) {
    let failure = Arc::new(failure);
    for piece in batch {
        piece.send(Err(Arc::clone(&failure)));
    }
}
