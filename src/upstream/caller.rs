//! One question to the upstream, asked until there is an answer or no sense in asking: attempts, waits, breaker.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode, Uri};
use tokio::time::Instant;

use super::retry::{Budget, backoff, luck, patience};
use super::room::Share;
use super::turn::Turn;
use super::{Breaker, Class, Client, Failure, Reply, Why, port_of};
use crate::config::{Config, Live};
use crate::metrics::{CallOutcome, Metrics, RetryReason};
use crate::traces::{MAX_LINKS, Span, TraceContext, attribute};
use crate::wire::{
    Base64, Encoding, Expected, Input, ReadAnswer, RequestForm, Space, Unreadable, WrittenEncoding, read_answer,
    write_request,
};

/// What all inputs of one call have in common.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The address.
    pub uri: Uri,
    /// The headers that go up, but for a key that vecho holds.
    pub headers: HeaderMap,
    /// What shapes the vectors.
    pub space: Space,
    /// The encoding asked for.
    pub encoding: Encoding,
    /// The `user` field.
    pub user: Option<String>,
    /// The length every vector must have, where one was asked for.
    pub dimension: Option<usize>,
    /// What is known of the upstream's base64.
    pub base64: Base64,
}

impl Terms {
    /// About what the answer to one input takes in memory, as bytes on the wire and as a vector.
    pub(super) fn answer_bytes(&self) -> usize {
        let known = match self.base64 {
            Base64::Proven(dimension) => Some(dimension),
            Base64::Trusted | Base64::Unproven => self.dimension,
        };
        let bytes_per_component = if self.encoding == Encoding::Base64 { 10 } else { 17 };
        known.unwrap_or(LIKELY_DIMENSION) * bytes_per_component
    }
}

/// What a vector's length is taken to be while it is not known: that of the largest common model.
const LIKELY_DIMENSION: usize = 3_072;

/// One call's inputs.
pub(super) struct Question<'a> {
    /// The inputs, all of one kind.
    pub inputs: Vec<&'a Input<'static>>,
    /// How many requests they come from.
    pub requests: usize,
    /// The traces of those requests, as far as they have any; the call is made in the first one's.
    pub traces: Vec<&'a TraceContext>,
    /// When each of those requests waits no more.
    pub deadlines: Vec<Instant>,
    /// The memory for its answer.
    pub share: &'a Share,
}

/// What came back, and the call that brought it.
pub(super) struct Answered {
    pub answer: ReadAnswer,
    pub reply: Reply,
    pub trace: TraceContext,
}

/// Asks questions.
pub struct Caller {
    client: Arc<Client>,
    breaker: Arc<Breaker>,
    budget: Budget,
    live: Live,
    metrics: Arc<Metrics>,
}

/// What to do after a failed attempt.
enum Next {
    GiveUp,
    RetryAfter(Duration, RetryReason),
}

/// How often a question has been asked.
#[derive(Default)]
struct Tries {
    attempts: u32,
    reconnected: bool,
}

impl Caller {
    /// A caller over one client and its breaker.
    pub fn new(client: Arc<Client>, breaker: Arc<Breaker>, live: Live, metrics: Arc<Metrics>) -> Self {
        Self { client, breaker, budget: Budget::new(), live, metrics }
    }

    /// Asks until there are vectors, or a failure that asking again would not mend.
    pub(super) async fn ask(
        &self,
        terms: &Terms,
        question: &Question<'_>,
        turn: &mut Turn,
    ) -> Result<Answered, Failure> {
        let config = self.live.load();
        let form = RequestForm { encoding: WrittenEncoding::Value(terms.encoding), ..RequestForm::default() };
        let body = write_request(&terms.space, &question.inputs, form, terms.user.as_deref());
        let mut tries = Tries::default();
        self.budget.deposit(config.retry.budget_ratio);
        loop {
            let Some(pass) = self.breaker.pass() else {
                return Err(Failure::unavailable(Why::BreakerOpen, "the breaker is open: the upstream kept failing"));
            };
            tries.attempts += 1;
            let begun = Instant::now();
            let span = begin_call(terms, question, tries.attempts);
            let reply = self.client.post(terms, body.clone(), &span.context(), question.share).await;
            let result = reply.and_then(|reply| read_reply(terms, question.inputs.len(), reply));
            let outcome = outcome_of(&result);
            let took = begun.elapsed();
            self.metrics.upstream_call(outcome, took, question.inputs.len(), question.requests);
            tell(&span, &result, outcome);
            let failure = match result {
                Ok((answer, reply)) => {
                    pass.answered();
                    return Ok(Answered { answer, reply, trace: span.context() });
                }
                Err(failure) => failure,
            };
            drop(span);
            let deadline = patience(&question.deadlines, failure.class, took);
            let next = self.next(&failure, &mut tries, deadline, &config);
            match next {
                // Says nothing about the upstream's health: the leave to call is handed back.
                Next::RetryAfter(_, RetryReason::ReusedConnection) => drop(pass),
                _ if failure.is_unavailable() => pass.failed(&config.breaker, &failure.detail),
                _ => pass.answered(),
            }
            match next {
                Next::GiveUp => return Err(failure),
                Next::RetryAfter(wait, reason) => {
                    tracing::debug!(cause = failure.detail, wait_ms = wait.as_millis(), "asking the upstream again");
                    question.share.begin_anew();
                    if !turn.pause(wait, deadline).await {
                        return Err(failure);
                    }
                    self.metrics.retry(reason);
                }
            }
        }
    }

    fn next(&self, failure: &Failure, tries: &mut Tries, deadline: Instant, config: &Config) -> Next {
        // A kept connection that the upstream closed at the same moment looks like this. It says nothing about the
        // upstream's health, so the one repetition is free.
        if failure.class == Class::Unavailable(Why::Dropped) && !tries.reconnected {
            tries.reconnected = true;
            return Next::RetryAfter(Duration::ZERO, RetryReason::ReusedConnection);
        }
        let attempts_left = tries.attempts < config.retry.max_attempts + u32::from(tries.reconnected);
        if !failure.may_be_retried() || !attempts_left {
            return Next::GiveUp;
        }
        let reason = if failure.class == Class::Throttled { RetryReason::Throttled } else { RetryReason::Unavailable };
        let wait = match failure.retry_after() {
            Some(asked) => asked.max(Duration::from_millis(1)),
            None => backoff(&config.retry, tries.attempts + 1 - u32::from(tries.reconnected), luck()),
        };
        let in_time = Instant::now().checked_add(wait).is_some_and(|at| at < deadline);
        if in_time && self.budget.withdraw() { Next::RetryAfter(wait, reason) } else { Next::GiveUp }
    }
}

fn outcome_of(result: &Result<(ReadAnswer, Reply), Failure>) -> CallOutcome {
    match result {
        Ok(_) => CallOutcome::Ok,
        Err(failure) => match failure.class {
            Class::Unavailable(_) => CallOutcome::Unavailable,
            Class::Throttled => CallOutcome::Throttled,
            Class::Refused => CallOutcome::Refused,
            Class::Unreadable(..) => CallOutcome::Unreadable,
        },
    }
}

/// The span of one attempt: in the trace of the first request, linked to the others.
fn begin_call(terms: &Terms, question: &Question<'_>, attempt: u32) -> Span {
    let Some((first, others)) = question.traces.split_first() else { return Span::default() };
    let span = first.call(terms.space.model_name());
    if !span.is_recorded() {
        return span;
    }
    // Each is compared with those before it, so what would not be kept is not looked at.
    for (place, other) in others.iter().take(MAX_LINKS as usize).enumerate() {
        let is_new = others[..place].iter().chain([first]).all(|seen| !seen.is_same_span(other));
        if is_new {
            span.link(other);
        }
    }
    span.text(attribute::SERVER, terms.uri.host().unwrap_or_default());
    if let Some(port) = port_of(&terms.uri) {
        span.count(attribute::PORT, port);
    }
    if let Some(dimensions) = terms.space.dimensions {
        span.count(attribute::DIMENSIONS, dimensions);
    }
    span.count(attribute::INPUTS, question.inputs.len());
    span.count(attribute::MERGED_REQUESTS, question.requests);
    if attempt > 1 {
        span.count(attribute::RESEND_COUNT, attempt - 1);
    }
    span
}

fn tell(span: &Span, result: &Result<(ReadAnswer, Reply), Failure>, outcome: CallOutcome) {
    span.text(attribute::OUTCOME, outcome.label());
    let reply = match result {
        Ok((answer, reply)) => {
            span.text(attribute::RESPONSE_MODEL, answer.model.as_deref().unwrap_or_default());
            if let Some(tokens) = answer.prompt_tokens {
                span.count(attribute::INPUT_TOKENS, tokens);
            }
            Some(reply)
        }
        Err(failure) => failure.reply.as_deref(),
    };
    if let Some(reply) = reply {
        span.count(attribute::STATUS, reply.status.as_u16());
    }
    match reply.filter(|reply| reply.status != StatusCode::OK) {
        Some(reply) => span.fail(reply.status.as_u16()),
        None if result.is_err() => span.fail(outcome.label()),
        None => {}
    }
}

fn read_reply(terms: &Terms, inputs: usize, reply: Reply) -> Result<(ReadAnswer, Reply), Failure> {
    if reply.status != StatusCode::OK {
        return Err(Failure::of_reply(reply));
    }
    let expected = Expected { inputs, asked: terms.dimension, known: None, base64: terms.base64 };
    match read_answer(&reply.body, &expected) {
        Ok(_) if says_stand_in(&reply) => Err(stand_in()),
        Err(Unreadable::StandIn) => Err(stand_in()),
        Ok(answer) => Ok((answer, reply)),
        Err(cause) => Err(Failure::unreadable(cause, terms.encoding, reply)),
    }
}

/// Another vecho behind this one may stand in for its own upstream. That is no answer to be kept: this one's fallback
/// decides what its callers get.
fn says_stand_in(reply: &Reply) -> bool {
    let mark = reply.headers.get("x-vecho-cache").and_then(|value| value.to_str().ok());
    matches!(mark, Some("mock" | "stale"))
}

fn stand_in() -> Failure {
    Failure::unavailable(Why::Status, "the upstream had only a stand-in to offer")
}
