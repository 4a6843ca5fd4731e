//! What a call has cost, as far as its end tells.

use super::call_executor::CallExecutor;
use super::{Class, Failure, LaneProperties, UnavailableReason, UpstreamReply};
use crate::wire::{ReadAnswer, reported_tokens};

impl CallExecutor {
    /// Counts the cost of an attempt. `estimate` counts if the service may have done the work but did not report it.
    pub(super) fn bill(
        &self,
        properties: &LaneProperties,
        result: &Result<(ReadAnswer, UpstreamReply), Failure>,
        estimate: usize,
    ) {
        let estimate = estimate as u64;
        let (tokens, answered) = match result {
            Ok((answer, _)) => (answer.prompt_tokens.unwrap_or(estimate), answer.model.as_deref()),
            Err(failure) => (failure.billed_tokens(estimate), None),
        };
        self.spend.spend(&properties.purchase(answered), tokens);
    }

    /// Fails if a budget is spent. What calls under way have reserved does not count, since the caller is one of them.
    pub(super) fn check_budget(&self, properties: &LaneProperties) -> Result<(), Failure> {
        let spent = self.spend.is_spent(&properties.purchase(None));
        spent.map_or(Ok(()), |refusal| Err(Failure::over_budget(&refusal)))
    }
}

impl Failure {
    /// Returns the tokens that the service has probably billed. Errors and refused connections cost nothing. An answer
    /// that broke off or came too late was paid for.
    fn billed_tokens(&self, estimate: u64) -> u64 {
        match self.class {
            Class::Unavailable(
                UnavailableReason::Timeout | UnavailableReason::MergeTimeout | UnavailableReason::Cut,
            ) => estimate,
            Class::InvalidAnswer(..) => {
                let reported = self.reply.as_ref().and_then(|reply| reported_tokens(&reply.body));
                reported.unwrap_or(estimate)
            }
            Class::Unavailable(_)
            | Class::Throttled
            | Class::Refused
            | Class::NotInTime { .. }
            | Class::OverBudget(_) => 0,
        }
    }
}
