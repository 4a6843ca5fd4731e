//! The cost of one fetch: set aside before its calls, given back piece by piece as they end.

use std::ops::Range;
use std::sync::Arc;

use super::fetch::Fetch;
use super::progress::FailedFetch;
use crate::cache::LeaseEnd;
use crate::spend::{OverBudget, SpendReservation};
use crate::upstream::Failure;
use crate::wire::{Input, tokens};

/// What a fetch has set aside.
#[derive(Default)]
pub(super) struct FetchSpending {
    reservation: SpendReservation,
    /// Expected tokens of each input; empty without a budget.
    tokens: Vec<u64>,
}

impl FetchSpending {
    /// Gives back what was set aside for some inputs.
    pub(super) fn release(&self, places: Range<usize>) {
        let tokens = self.tokens.get(places).unwrap_or_default();
        if !tokens.is_empty() {
            self.reservation.release(tokens.iter().sum());
        }
    }
}

impl Fetch {
    /// Sets aside what these inputs are expected to cost.
    pub(super) async fn reserve(&self, inputs: &[Input<'static>]) -> Result<FetchSpending, Box<OverBudget>> {
        if self.flow.spend.is_off() {
            return Ok(FetchSpending::default());
        }
        let tokens = self.expected_tokens(inputs).await;
        let identity = self.space.space_state.identity();
        let purchase = self.lane.properties.purchase(identity.as_ref().map(|identity| &*identity.model));
        let reservation = self.flow.spend.reserve(&purchase, tokens.iter().sum())?;
        Ok(FetchSpending { reservation, tokens })
    }

    /// Returns the tokens of each input. OpenAI's models count as the tokenizer does, so their cost is known before.
    async fn expected_tokens(&self, inputs: &[Input<'static>]) -> Vec<u64> {
        if tokens::counts_with_cl100k(&self.lane.properties.priced_as) {
            let borrowed: Vec<&Input<'_>> = inputs.iter().collect();
            if let Some(counts) = self.flow.tokenizer.count(&borrowed, self.flow.clock.now_ms()).await {
                return counts.into_iter().map(u64::from).collect();
            }
        }
        inputs.iter().map(|input| input.estimated_tokens() as u64).collect()
    }

    /// Ends the fetch of keys that a budget does not cover.
    pub(super) fn refuse(&self, refusal: &OverBudget, places: &[usize]) {
        let failure = Arc::new(Failure::over_budget(refusal));
        let keys = places.iter().map(|place| self.lead.keys()[*place]).collect();
        let failed = FailedFetch { failure, keys, credential: self.caller.credential, request: self.own.id() };
        let failed = Arc::new(failed);
        self.lead.complete(places.iter().map(|place| (*place, Err(Arc::clone(&failed)))));
        // Another replica may know more of the budget.
        self.release(places, LeaseEnd::GivenUp);
    }
}
