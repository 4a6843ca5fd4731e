//! Attributes of a request's spans on the public port. They never include a text, a key or a header.

use http::{Request, Response, StatusCode};

use crate::flow::SourceCounts;
use crate::observe::traces::{Span, attribute};
use crate::upstream::{ForwardError, ForwardedBody, RouteKind, port_of};
use crate::wire::EmbedRequest;

/// Returns the pattern of an embeddings path. Clients choose the prefixes, so the pattern does not contain them.
pub(super) fn pattern(kind: RouteKind, path: &str) -> Option<&'static str> {
    const FIXED: [&str; 3] = ["/v1/embeddings", "/embeddings", "/openai/v1/embeddings"];
    match kind {
        RouteKind::Embeddings => Some(FIXED.into_iter().find(|fixed| *fixed == path).unwrap_or("/{prefix}/embeddings")),
        RouteKind::Deployment => Some("/openai/deployments/{deployment}/embeddings"),
        RouteKind::Other => None,
    }
}

/// Sets the attributes of the request.
pub(super) fn asked(span: &Span, request: &EmbedRequest<'_>) {
    if let Some(model) = &request.space.model {
        span.text(attribute::REQUEST_MODEL, model);
    }
    if let Some(dimensions) = request.space.dimensions {
        span.count(attribute::DIMENSIONS, dimensions);
    }
    span.count(attribute::INPUTS, request.inputs.len());
}

/// Sets the sources of the answer.
pub(super) fn served(span: &Span, source_counts: &SourceCounts, model: &str) {
    span.shown(attribute::SOURCES, || source_counts.sources());
    span.count(attribute::TOKENS_BILLED, source_counts.billed);
    span.count(attribute::TOKENS_SAVED, source_counts.saved);
    span.text(attribute::RESPONSE_MODEL, model);
}

/// Sets the status of the response.
pub(super) fn answered(span: &Span, status: StatusCode) {
    span.count(attribute::STATUS, status.as_u16());
    // OpenTelemetry's HTTP conventions: a server span fails by a 5xx only, and a client span also by a 4xx.
    if status.is_server_error() {
        span.fail(status.as_u16());
    }
}

/// Starts the span of a forwarded request.
pub(super) fn forwarded<B>(span: &Span, request: &Request<B>) -> Span {
    let call = span.context().forward(request.method());
    call.text(attribute::SERVER, request.uri().host().unwrap_or_default());
    if let Some(port) = port_of(request.uri()) {
        call.count(attribute::PORT, port);
    }
    call
}

/// Ends that span when the response has begun or has failed.
pub(super) fn opened_as(call: Span, opened: &Result<Response<ForwardedBody>, ForwardError>) {
    match opened {
        Ok(response) => {
            call.count(attribute::STATUS, response.status().as_u16());
            if response.status().is_client_error() || response.status().is_server_error() {
                call.fail(response.status().as_u16());
            }
        }
        Err(ForwardError::Late) => call.fail("timeout"),
        Err(
            ForwardError::Unreachable { .. } | ForwardError::Unanswered { .. } | ForwardError::UnaskedSwitch { .. },
        ) => {
            call.fail("unavailable");
        }
        Err(ForwardError::RequestBody | ForwardError::RequestStalled | ForwardError::TooLarge { .. }) => {
            call.fail("request_body");
        }
    }
    // The span ends when the response begins, so it does not cover the streamed body.
    drop(call);
}
