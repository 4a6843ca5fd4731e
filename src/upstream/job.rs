//! The inputs of one call, and the form in which they are sent.

use std::sync::Arc;

use bytes::Bytes;

use super::permit::Claim;
use super::piece::{Piece, load_of};
use super::sizing::{LaneSize, Load};
use super::{Class, Failure, LaneProperties};
use crate::config::Priority;
use crate::key::Key;
use crate::wire::{Encoding, Input, RequestForm, Space, WrittenEncoding, write_request};

/// Inputs that are sent together in one call.
pub(super) struct CallJob {
    /// The lane.
    pub(super) id: Key,
    pub(super) properties: Arc<LaneProperties>,
    pub(super) lane: Arc<LaneSize>,
    pub(super) batch: Vec<Piece>,
    /// True if it is a part of a request that was cut.
    pub(super) is_part: bool,
    /// Maximum number of attempts of one call.
    pub(super) attempts: u32,
}

/// Form in which a job is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyForm {
    /// As its caller wrote it, byte for byte.
    Own,
    /// Written by vecho.
    Written,
}

impl CallJob {
    pub(super) fn load(&self) -> Load {
        load_of(&self.batch)
    }

    /// Returns the caller that its call is made for: the first of the batch.
    pub(super) fn claim(&self) -> Claim {
        let first = self.batch.first().map(|piece| (piece.waiter.caller, piece.waiter.priority));
        let (caller, priority) = first.unwrap_or((self.id, Priority::default()));
        Claim { caller, model: self.properties.model, priority }
    }

    pub(super) fn with(&self, batch: Vec<Piece>) -> Self {
        let (properties, lane) = (Arc::clone(&self.properties), Arc::clone(&self.lane));
        Self { id: self.id, properties, lane, batch, is_part: self.is_part, attempts: self.attempts }
    }

    /// Chooses the caller's own bytes if they ask for exactly the missing inputs, once, in the wanted encoding. With
    /// `own_only`, repetitions and the encoding do not matter.
    pub(super) fn form(&self, own_only: bool) -> BodyForm {
        let [piece] = &*self.batch else { return BodyForm::Written };
        let is_wanted = self.asks_as(piece) && !piece.own().has_repetitions();
        if piece.is_whole() && (own_only || is_wanted) { BodyForm::Own } else { BodyForm::Written }
    }

    fn asks_as(&self, piece: &Piece) -> bool {
        piece.own().form.encoding == self.properties.form.encoding
    }

    /// Returns true if the caller's own request may succeed where vecho's own form failed. A service is not sent the
    /// same call twice, nor more inputs than it accepts.
    pub(super) fn should_retry_as_original(
        &self,
        piece: &Piece,
        (failure, accepted_inputs): (&Failure, usize),
    ) -> bool {
        // A known service accepts every encoding, so another encoding does not make the call a different one.
        let is_same = piece.is_whole() && (self.asks_as(piece) || self.properties.is_known);
        let is_refused = !matches!(failure.class, Class::InvalidAnswer(..));
        !(is_same && is_refused) && failure.may_be_of_the_form() && piece.own().inputs() <= accepted_inputs
    }
}

/// Returns the body of a call, the number of its inputs, the encoding that it asks for, and whether it repeats an input.
pub(super) fn content_of(job: &CallJob, form: BodyForm) -> (Bytes, usize, Encoding, bool) {
    match (form, &*job.batch) {
        (BodyForm::Own, [piece]) => {
            let own = piece.own();
            (own.body.clone(), own.inputs(), own.form.encoding.meaning(), own.has_repetitions())
        }
        _ => (
            body_for(job, BodyForm::Written, (&job.properties.space, None)),
            job.load().inputs,
            job.properties.encoding,
            false,
        ),
    }
}

/// Writes the body of a call for a space. vecho's own form keeps the form of the requests as far as possible. The
/// caller's own request keeps its repetitions and its spelling. `encoding` replaces that of the form.
pub(super) fn body_for(job: &CallJob, form: BodyForm, (space, encoding): (&Space, Option<Encoding>)) -> Bytes {
    let spelled = |form: RequestForm| match encoding {
        Some(encoding) => RequestForm { encoding: WrittenEncoding::Value(encoding), ..form },
        None => form,
    };
    let user = job.properties.user.as_deref();
    if let (BodyForm::Own, [piece]) = (form, &*job.batch) {
        let (own, distinct) = (piece.own(), piece.inputs());
        let inputs: Vec<&Input<'_>> = own.slots.iter().filter_map(|slot| distinct.get(*slot as usize)).collect();
        return write_request(space, &inputs, spelled(own.form), user);
    }
    let inputs: Vec<&Input<'_>> = job.batch.iter().flat_map(Piece::inputs).collect();
    let is_single = job.batch.iter().all(|piece| piece.own().form.is_single);
    write_request(space, &inputs, spelled(RequestForm { is_single, ..job.properties.form }), user)
}
