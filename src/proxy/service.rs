//! One request of the public port: let in, sent down its route, counted.

use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::ReplyBody;
use super::gate::Gate;
use super::reply::{Finished, Replies};
use super::traced::{answered, pattern};
use crate::answers::Answers;
use crate::config::Live;
use crate::flow::Flow;
use crate::key::PassingSecret;
use crate::metrics::{Ended, Metrics, Outcome, Route, Subject};
use crate::tasks::Tasks;
use crate::traces::{Span, attribute};
use crate::upstream::{Client, RouteKind, classify_path};

/// The public port. Used by `Arc`.
pub struct Proxy {
    pub(super) flow: Arc<Flow>,
    pub(super) answers: Arc<Answers>,
    pub(super) client: Arc<Client>,
    pub(super) live: Live,
    pub(super) gate: Gate,
    pub(super) replies: Replies,
    /// What the keys of rendered answers are made with.
    pub(super) answer_secret: PassingSecret,
    /// Where upgraded connections run.
    pub(super) tunnels: Tasks,
    pub(super) metrics: Arc<Metrics>,
}

impl Proxy {
    /// A proxy in front of `flow`, with the same upstream for whatever passes through.
    pub fn new(flow: Arc<Flow>, answers: Arc<Answers>, client: Arc<Client>, tunnels: Tasks) -> Arc<Self> {
        let (live, metrics) = (flow.live.clone(), Arc::clone(&flow.metrics));
        let gate = Gate::new(&live.load().limits, Arc::clone(&metrics));
        let (replies, answer_secret) = (Replies::new(), PassingSecret::new());
        Arc::new(Self { flow, answers, client, live, gate, replies, answer_secret, tunnels, metrics })
    }

    /// Answers one request.
    pub async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<ReplyBody> {
        let kind =
            if request.method() == Method::POST { classify_path(request.uri().path()) } else { RouteKind::Other };
        let route = if kind == RouteKind::Other { Route::Passthrough } else { Route::Embeddings };
        let span = self.flow.tracer.request(&request, || pattern(kind, request.uri().path()));
        let mut count = Count::begin(&self.metrics, route, span);
        let Finished { response, outcome, subject } = match self.gate.admit() {
            Err(rejection) => {
                self.metrics.rejected(rejection);
                self.replies.overloaded(rejection)
            }
            // In a box of its own, as all that a hit does not do: a future takes room for its longest branch, and is
            // copied several times before it runs.
            Ok(admission) if kind == RouteKind::Other => {
                Box::pin(self.pass_through(request, admission, &count.span)).await
            }
            Ok(admission) => self.embeddings(request, kind, admission, &count).await,
        };
        answered(&count.span, response.status());
        count.end(outcome, response.status(), subject);
        tracing::debug!(
            route = route.label(),
            outcome = outcome.label(),
            status = response.status().as_u16(),
            elapsed_us = count.begun.elapsed().as_micros(),
            "request"
        );
        response
    }
}

/// Counts a request when it ends, and ends its span; one that is dropped before was cancelled by its client.
pub(super) struct Count<'a> {
    metrics: &'a Metrics,
    route: Route,
    pub(super) begun: Instant,
    outcome: Outcome,
    pub(super) span: Span,
    status: Option<u16>,
    subject: Option<Subject>,
}

impl<'a> Count<'a> {
    fn begin(metrics: &'a Metrics, route: Route, span: Span) -> Self {
        let (begun, outcome) = (Instant::now(), Outcome::Cancelled);
        Self { metrics, route, begun, outcome, span, status: None, subject: None }
    }

    fn end(&mut self, outcome: Outcome, status: StatusCode, subject: Option<Subject>) {
        (self.outcome, self.status, self.subject) = (outcome, Some(status.as_u16()), subject);
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.span.text(attribute::OUTCOME, self.outcome.label());
        self.metrics.request(Ended {
            route: self.route,
            outcome: self.outcome,
            status: self.status,
            begun: self.begun.into_std(),
            elapsed: self.begun.elapsed(),
            subject: self.subject.take(),
        });
    }
}
