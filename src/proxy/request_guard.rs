//! Guard of one request of the public port: records it, ends its span, and sets its deadline.

use http::Response;
use tokio::time::Instant;

use super::ReplyBody;
use super::finished::Finished;
use super::traced::answered;
use crate::config::Config;
use crate::observe::metrics::{Ended, Metrics, Outcome, RequestUsage, Route};
use crate::observe::traces::{Span, attribute};

/// Guard that records a request and ends its span on drop. A request dropped before its end was cancelled by its
/// client.
pub(super) struct RequestGuard<'a> {
    metrics: &'a Metrics,
    route: Route,
    begun: Instant,
    outcome: Outcome,
    pub(super) span: Span,
    status: Option<u16>,
    subject: Option<RequestUsage>,
}

impl<'a> RequestGuard<'a> {
    pub(super) fn begin(metrics: &'a Metrics, route: Route, span: Span) -> Self {
        let (begun, outcome) = (Instant::now(), Outcome::Cancelled);
        Self { metrics, route, begun, outcome, span, status: None, subject: None }
    }

    /// Returns the time at which the caller stops waiting: the arrival of the request's head plus
    /// `limits.request_timeout`. The flow enforces it for lookups and fetches (`Request::wait` in `flow`), and
    /// [`ForwardContext`](super::passthrough::ForwardContext) for requests that are passed through.
    pub(super) fn deadline(&self, config: &Config) -> Instant {
        self.begun + config.limits.request_timeout
    }

    /// Records the end of the request and returns its response.
    pub(super) fn ended(&mut self, finished: Finished) -> Response<ReplyBody> {
        let Finished { response, outcome, subject, .. } = finished;
        let status = response.status();
        answered(&self.span, status);
        (self.outcome, self.status, self.subject) = (outcome, Some(status.as_u16()), subject);
        tracing::debug!(
            route = self.route.label(),
            outcome = outcome.label(),
            status = status.as_u16(),
            elapsed_us = self.begun.elapsed().as_micros(),
            "request"
        );
        response
    }
}

impl Drop for RequestGuard<'_> {
    fn drop(&mut self) {
        self.span.text(attribute::OUTCOME, self.outcome.label());
        self.metrics.requests.ended(Ended {
            route: self.route,
            outcome: self.outcome,
            status: self.status,
            begun: self.begun.into_std(),
            elapsed: self.begun.elapsed(),
            subject: self.subject.take(),
        });
    }
}
