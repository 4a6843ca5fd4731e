//! Verdict on a final failure: it is part of an outage, or the fault of one request.

use std::time::Duration;

use tokio::time::timeout;

use super::call::Call;
use super::caller::{Caller, read_reply};
use super::{Class, Failure, Outage, Terms, Why};
use crate::config::Config;
use crate::observe::traces::TraceContext;
use crate::wire::{Input, RequestForm, write_request};

/// Timeout for the answer to a known input. Its callers wait for an error meanwhile.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

impl Caller {
    /// Records what a final failure says about the space. Returns the failure, marked if it is part of an outage.
    pub(super) async fn judged(
        &self,
        failure: Failure,
        terms: &Terms,
        (call, config): (&Call<'_>, &Config),
    ) -> Failure {
        let enough = config.breaker.failures;
        match failure.class {
            Class::Unavailable(Why::Connect) => failure.with_outage(Outage::Unreachable),
            Class::Unavailable(Why::StandIn) => failure.with_outage(Outage::StandsIn),
            Class::Unavailable(Why::Status | Why::Dropped | Why::Cut) if !call.is_merged() && enough > 0 => {
                let request = call.batch.first().map_or(0, |piece| piece.own().id());
                let requests = self.health.failed(terms.model, request, enough);
                if requests < enough || self.still_answers(terms, call).await {
                    return failure;
                }
                failure.with_outage(Outage::Failing { requests })
            }
            Class::Refused | Class::Unreadable(..) => {
                self.health.answered(&terms.model);
                failure
            }
            Class::Unavailable(_) | Class::Throttled => failure,
        }
    }

    /// Returns true if the space still returns a vector for an input that it answered before; then the texts caused the
    /// failures. Costs a call for one short input.
    async fn still_answers(&self, terms: &Terms, call: &Call<'_>) -> bool {
        let answers = call.lane.known_good.is_answered(|input| self.answers_again(terms, call, input)).await;
        if answers {
            self.health.answered(&terms.model);
            self.breaker.answered();
        }
        answers
    }

    async fn answers_again(&self, terms: &Terms, call: &Call<'_>, input: Input<'static>) -> bool {
        let form = RequestForm { is_single: call.batch.iter().all(|piece| piece.own().form.is_single), ..terms.form };
        let body = write_request(&terms.space, &[&input], form, terms.user.as_deref());
        let posted = self.client.post(terms, body.clone(), TraceContext::NONE, call.reservation);
        // A model that takes longer may be healthy, but this is not proven.
        let Ok(reply) = timeout(LONGEST_WAIT, posted).await else {
            return false;
        };
        let probe = Call { body, inputs: 1, encoding: terms.encoding, has_repetitions: false, ..*call };
        reply.and_then(|reply| read_reply(terms, &probe, reply)).is_ok()
    }
}
