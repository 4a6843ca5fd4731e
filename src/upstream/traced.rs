//! Spans of upstream calls: in the trace of the first request, linked to the others.

use http::StatusCode;

use super::call::Call;
use super::{Failure, LaneProperties, UpstreamReply, port_of};
use crate::observe::metrics::CallOutcome;
use crate::observe::traces::{MAX_LINKS, Span, attribute};
use crate::wire::ReadAnswer;

/// Starts the span of one attempt, in the trace of the first request and linked to the others. `target` is the name of
/// the place that it goes to, if there are several.
pub(super) fn begin_call(properties: &LaneProperties, call: &Call<'_>, (attempt, target): (u32, Option<&str>)) -> Span {
    let traces: Vec<_> = call.batch.iter().map(|piece| &piece.waiter.trace).filter(|trace| trace.is_known()).collect();
    let Some((first, others)) = traces.split_first() else { return Span::default() };
    let span = first.call(properties.space.model_name());
    // An unsampled span drops all attributes, so none are computed.
    if !span.is_recorded() {
        return span;
    }
    // Each context is compared with those before it, so contexts beyond the maximum number of links are ignored.
    for (place, other) in others.iter().take(MAX_LINKS as usize).enumerate() {
        let is_new = others[..place].iter().chain([first]).all(|seen| !seen.is_same_span(other));
        if is_new {
            span.link(other);
        }
    }
    span.text(attribute::SERVER, properties.uri.host().unwrap_or_default());
    if let Some(port) = port_of(&properties.uri) {
        span.count(attribute::PORT, port);
    }
    if let Some(target) = target {
        span.text(attribute::TARGET, target);
    }
    if let Some(dimensions) = properties.space.dimensions {
        span.count(attribute::DIMENSIONS, dimensions);
    }
    span.count(attribute::INPUTS, call.inputs);
    span.count(attribute::MERGED_REQUESTS, call.batch.len());
    if attempt > 1 {
        span.count(attribute::RESEND_COUNT, attempt - 1);
    }
    span
}

pub(super) fn tell(span: &Span, result: &Result<(ReadAnswer, UpstreamReply), Failure>, outcome: CallOutcome) {
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
        // The error type is the status if there is one, else the outcome.
        Some(reply) => span.fail(reply.status.as_u16()),
        None if result.is_err() => span.fail(outcome.label()),
        None => {}
    }
}
