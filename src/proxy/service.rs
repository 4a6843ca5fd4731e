//! Handles one request of the public port: admission, routing and counting.

use std::sync::Arc;

use http::header::CONNECTION;
use http::{Method, Request, Response, Uri};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::ReplyBody;
use super::cors::CorsCache;
use super::decode::BodyDecoder;
use super::gate::{Gate, GateBounds};
use super::glance::Glance;
use super::intake::{drop_unsent, target_uri};
use super::reply::{Finished, Replies};
use super::traced::{answered, pattern};
use crate::cache::reply_cache::Answers;
use crate::config::Live;
use crate::flow::Flow;
use crate::key::PassingSecret;
use crate::observe::metrics::{Ended, Metrics, Outcome, Route, Subject};
use crate::observe::traces::{Span, attribute};
use crate::process::tasks::Tasks;
use crate::upstream::{Client, RouteKind, classify_path};

/// The public port, shared through `Arc`.
pub struct Proxy {
    pub(super) flow: Arc<Flow>,
    pub(super) answers: Arc<Answers>,
    pub(super) client: Arc<Client>,
    pub(super) live: Live,
    pub(super) gate: Gate,
    pub(super) decoder: BodyDecoder,
    pub(super) cors: CorsCache,
    pub(super) replies: Replies,
    /// Secret for the keys of the reply cache.
    pub(super) answer_secret: PassingSecret,
    /// Tasks of upgraded connections.
    pub(super) tunnels: Tasks,
    pub(super) metrics: Arc<Metrics>,
}

impl Proxy {
    /// Creates a proxy in front of `flow`, with the same upstream for requests that pass through. Requests and their
    /// responses together hold at most `max_bytes`.
    pub fn new(
        flow: Arc<Flow>,
        answers: Arc<Answers>,
        client: Arc<Client>,
        max_bytes: usize,
        tunnels: Tasks,
    ) -> Arc<Self> {
        let (live, metrics) = (flow.live.clone(), Arc::clone(&flow.metrics));
        let config = live.load();
        let bounds = GateBounds { max_requests: config.limits.max_requests, max_bytes };
        let gate = Gate::new(bounds, &config.auth.credential_headers, &metrics);
        let (replies, answer_secret) = (Replies::new(), PassingSecret::new());
        let (decoder, cors) = (BodyDecoder::new(), CorsCache::new());
        Arc::new(Self { flow, answers, client, live, gate, decoder, cors, replies, answer_secret, tunnels, metrics })
    }

    /// Classifies a path by its upstream path. The end of our own path is nearly always sufficient.
    fn kind_of(&self, uri: &Uri) -> RouteKind {
        match classify_path(uri.path()) {
            RouteKind::Other => {
                target_uri(&self.live.load(), uri).map_or(RouteKind::Other, |uri| classify_path(uri.path()))
            }
            kind => kind,
        }
    }

    /// Answers one request.
    ///
    /// Branches that a hit does not take are in separate boxes, and the head is moved only into those branches: a
    /// future has the size of its largest branch and is copied several times before it runs.
    pub fn handle(self: Arc<Self>, request: Request<Incoming>) -> impl Future<Output = Response<ReplyBody>> + Send {
        let (mut head, body) = request.into_parts();
        async move {
            if head.headers.contains_key(CONNECTION) {
                drop_unsent(&self.live.load(), &mut head.headers);
            }
            let kind = if head.method == Method::POST { self.kind_of(&head.uri) } else { RouteKind::Other };
            let route = if kind == RouteKind::Other { Route::Passthrough } else { Route::Embeddings };
            let span = self.flow.tracer.request(&head, || pattern(kind, head.uri.path()));
            let mut count = Count::begin(&self.metrics, route, span);
            let finished = match self.gate.admit(&head.headers) {
                Err(rejection) => self.overloaded(rejection),
                Ok(admission) if kind == RouteKind::Other => {
                    let request = Request::from_parts(head, body);
                    Box::pin(self.other(request, admission, &count.span)).await
                }
                Ok(mut admission) => match self.read_head(&head) {
                    Err(bad) => self.refuse_control(bad),
                    Ok((controls, cors)) => {
                        let finished = match self.glance(&head, body, controls, &mut admission, &count).await {
                            Glance::Served(finished) => self.admit_reply(finished, admission),
                            Glance::Refused(finished) => finished,
                            Glance::Open(open) => self.embeddings(head, open, admission, &count).await,
                        };
                        self.with_cors(cors, finished)
                    }
                },
            };
            count.ended(finished)
        }
    }
}

/// Records a request and ends its span on drop. A request dropped before its end was cancelled by its client.
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

    /// Records the end of the request and returns its response.
    fn ended(&mut self, finished: Finished) -> Response<ReplyBody> {
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
