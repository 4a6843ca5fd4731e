//! Verdict on a final failure: it is part of an outage, or the fault of one request.

use std::time::Duration;

use tokio::time::timeout;

use super::call::Call;
use super::call_executor::{CallExecutor, read_reply};
use super::{Class, Failure, LaneProperties, Outage, UnavailableReason};
use crate::config::Config;
use crate::observe::traces::TraceContext;
use crate::wire::{Input, RequestForm, write_request};

/// Timeout for the answer to a known input. Its callers wait for an error meanwhile.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

impl CallExecutor {
    /// Records what a final failure says about the space. Returns the failure, marked if it is part of an outage.
    pub(super) async fn judged(
        &self,
        failure: Failure,
        properties: &LaneProperties,
        (call, config): (&Call<'_>, &Config),
    ) -> Failure {
        let enough = config.breaker.failures;
        match failure.class {
            Class::Unavailable(UnavailableReason::Connect) => failure.with_outage(Outage::Unreachable),
            Class::Unavailable(UnavailableReason::UpstreamFallback) => failure.with_outage(Outage::UpstreamFallback),
            // A failed merged call proves nothing about the space: each of its requests is sent separately next.
            Class::Unavailable(reason) if reason.may_be_of_the_call() && !call.is_merged() && enough > 0 => {
                let request = call.batch.first().map_or(0, |piece| piece.own().id());
                let requests = self.health.failed(properties.model, request, enough);
                // The test of a known input costs a call, so it runs only after enough requests have failed.
                if requests < enough || self.still_answers(properties, call).await {
                    return failure;
                }
                failure.with_outage(Outage::Failing { requests })
            }
            Class::Refused | Class::InvalidAnswer(..) => {
                // The service has processed this request, so the run of failures ends.
                self.health.answered(&properties.model);
                failure
            }
            // Timeouts, expired waits and rate limits neither prove nor disprove an outage.
            Class::Unavailable(_) | Class::Throttled | Class::NotInTime { .. } | Class::OverBudget(_) => failure,
        }
    }

    /// Returns true if the space still returns a vector for an input that it answered before; then the texts caused the
    /// failures. Costs a call for one short input.
    async fn still_answers(&self, properties: &LaneProperties, call: &Call<'_>) -> bool {
        let answers = call.lane.known_good.is_answered(|input| self.answers_again(properties, call, input)).await;
        if answers {
            self.health.answered(&properties.model);
            // The test was made without `Breaker::pass`, so the breaker learns of its answer here.
            self.breaker.answered();
        }
        answers
    }

    async fn answers_again(&self, properties: &LaneProperties, call: &Call<'_>, input: Input<'static>) -> bool {
        // The test keeps the form of the failed call, so the text is the only difference.
        let form =
            RequestForm { is_single: call.batch.iter().all(|piece| piece.own().form.is_single), ..properties.form };
        let body = write_request(&properties.space, &[&input], form, properties.user.as_deref());
        let posted = self.client.post(properties, body.clone(), TraceContext::NONE, call.reservation);
        // A model that takes longer may be healthy, but this is not proven.
        let Ok(reply) = timeout(LONGEST_WAIT, posted).await else {
            // The service may have done the work.
            self.spend.spend(&properties.purchase(None), input.estimated_tokens() as u64);
            return false;
        };
        let probe = Call { body, inputs: 1, encoding: properties.encoding, has_repetitions: false, ..*call };
        let result = match reply {
            Ok(reply) => read_reply(properties, &probe, reply).await,
            Err(failure) => Err(failure),
        };
        self.bill(properties, &result, input.estimated_tokens());
        result.is_ok()
    }
}
