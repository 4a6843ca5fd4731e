//! Proof of a new token: the first request with it asks the upstream, and others with the same token wait for that.
//!
//! The claims of a token name its owner, but anyone can write claims. So nothing of the owner is served before the
//! upstream has accepted this very token. A small request is its own proof. A large one first sends its shortest input,
//! because most of the others may be stored.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::progress::{FailedFetch, Progress, Served, Slot};
use super::request::Request;
use super::single_flight::{Claims, Leader};
use crate::key::Tag;

/// Number of inputs up to which a request is fetched whole as the proof. Their price is less than a further round trip
/// is worth.
const WHOLE_INPUTS: usize = 16;

/// Longest wait for the proof of another request. A request that waits longer asks the upstream itself.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// Result of a proof that a request led.
pub(super) enum Proof {
    /// All of the request was fetched, or one failure answers all of it.
    Whole(Progress),
    /// The vector of one distinct input, given by its place.
    One(usize, Box<Served>),
}

impl Request<'_> {
    /// Asks the upstream whether it accepts the token, unless the answer is known. Returns the vectors that this has
    /// fetched. Afterwards the request is trusted if the token was accepted.
    pub(super) async fn prove_token(&mut self) -> Option<Proof> {
        let (owner, accepted) = (self.caller.owner?, self.caller.accepted_credential?);
        let controls = &self.context().controls;
        // An expired token proves nothing about later requests, and a request that may not fetch can prove nothing.
        if self.trusted || controls.only_if_cached || owner.expires_ms <= self.flow.clock.now_ms() {
            return None;
        }
        let key = accepted.credential.extend(Tag::Scope, accepted.subject.as_bytes());
        let Claims { waiters, lead, .. } = self.flow.proofs.claim(&[key]);
        let proof = if let Some(lead) = lead {
            Box::pin(self.lead_proof(lead)).await
        } else {
            let until = self.context().deadline.min(Instant::now() + MAX_WAIT);
            drop(timeout_at(until, waiters[0].completion()).await);
            None
        };
        self.trusted = self.flow.accepted_credentials.holds(&accepted, self.flow.clock.now_ms());
        proof
    }

    /// Looks up the inputs, except those that the proof has fetched.
    pub(super) async fn begin(&self, proof: Option<Proof>) -> Option<Progress> {
        match proof {
            None => self.look_up().await,
            Some(Proof::Whole(progress)) => Some(progress),
            Some(Proof::One(place, served)) => {
                let mut progress = self.look_up().await?;
                // The vector was fetched for this request, although memory holds it by now.
                progress.slots[place] = Slot::Served(*served);
                Some(progress)
            }
        }
    }

    /// Fetches the proof. The requests that wait for it are released when this ends, for any reason.
    async fn lead_proof(&self, _lead: Leader<()>) -> Option<Proof> {
        // Such a request passes through, which proves nothing.
        if self.known_unreadable().is_some() {
            return None;
        }
        let mut progress = self.look_up().await?;
        let places = progress.empty_places();
        if places.len() <= WHOLE_INPUTS {
            self.fetch_places(&places, true, &mut progress).await;
            return Some(Proof::Whole(progress));
        }
        let tokens = |place: &usize| self.job.request.inputs[self.plan.firsts[*place]].estimated_tokens();
        let shortest = places.into_iter().min_by_key(tokens)?;
        self.fetch_places(&[shortest], true, &mut progress).await;
        match std::mem::replace(&mut progress.slots[shortest], Slot::Empty) {
            Slot::Served(served) => Some(Proof::One(shortest, Box::new(served))),
            Slot::Failed(failed) if answers_all(&failed) => {
                progress.slots.fill(Slot::Failed(failed));
                Some(Proof::Whole(progress))
            }
            // The cause may be this one text, so the upstream decides about the whole request.
            Slot::Failed(_) | Slot::Empty => None,
        }
    }
}

/// Returns true if the failure of one input is the same for all inputs of its request.
fn answers_all(failed: &FailedFetch) -> bool {
    failed.failure.concerns_the_caller() || failed.failure.outage.is_some()
}
