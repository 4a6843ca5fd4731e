//! A call of vecho's own, such as one for the texts that targets are compared by.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::breaker::HostFault;
use super::call::Call;
use super::call_executor::{CallExecutor, outcome_of, read_reply};
use super::pacing::PaceTurn;
use super::{Class, Failure, LaneProperties, Outage, UnavailableReason};
use crate::observe::traces::TraceContext;
use crate::wire::ReadAnswer;

/// Longest time of a call of vecho's own. A request waits for it.
const OWN_CALL: Duration = Duration::from_secs(20);

/// Id of these calls among the requests that failed.
const OWN_REQUEST: u64 = 0;

impl CallExecutor {
    /// Makes a call of vecho's own once, without a retry, in its turn if it has one. It has this many tokens.
    pub(super) async fn ask(
        &self,
        (properties, call): (&LaneProperties, &Call<'_>),
        (mut turn, tokens): (Option<PaceTurn>, usize),
    ) -> Result<ReadAnswer, Failure> {
        let Some(pass) = self.breaker.pass() else { return Err(self.breaker_open()) };
        let begun = Instant::now();
        if let Some(turn) = &mut turn {
            turn.begin(tokens);
        }
        let posted = self.client.post(properties, call.body.clone(), TraceContext::NONE, call.reservation);
        let result = match timeout_at(begun + OWN_CALL, posted).await {
            Ok(Ok(reply)) => read_reply(properties, call, reply).await,
            Ok(Err(failure)) => Err(failure),
            Err(_) => {
                Err(Failure::unavailable(UnavailableReason::Status, "no answer to a call of vecho's own in time"))
            }
        };
        if let Some(turn) = turn {
            let answered = result.as_ref().map(|(answer, reply)| (&reply.headers, answer.prompt_tokens));
            turn.ended(answered, false);
        }
        self.count(outcome_of(&result), begun.elapsed(), call);
        match &result {
            Err(failure) if failure.class == Class::Unavailable(UnavailableReason::Connect) => {
                let fault = HostFault { cause: &failure.detail, is_unreachable: true, requests: &[OWN_REQUEST] };
                pass.failed(&self.live.load().breaker, &fault);
            }
            Err(Failure { class: Class::Unavailable(_), .. }) => drop(pass),
            _ => pass.answered(),
        }
        result.map(|(answer, _)| answer).map_err(|failure| match failure.class {
            Class::Unavailable(UnavailableReason::Connect) => failure.with_outage(Outage::Unreachable),
            _ => failure,
        })
    }
}
