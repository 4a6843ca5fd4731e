//! Handles one request of the public port: admission and routing.

use std::sync::Arc;

use http::header::CONNECTION;
use http::{Method, Request, Response, Uri, request};
use hyper::body::Incoming;

use super::compression::{CompressionPlan, compress};
use super::fast_path::FastPath;
use super::intake::{drop_unsent, target_uri};
use super::passthrough::ForwardContext;
use super::request_guard::RequestGuard;
use super::similar::SimilarRoute;
use super::traced::pattern;
use super::{Proxy, ReplyBody};
use crate::config::Config;
use crate::observe::metrics::Route;
use crate::upstream::{RouteKind, classify_path};

impl Proxy {
    /// Answers one request of a caller nearby or far away.
    ///
    /// Branches that a hit does not take are in separate boxes, and the head is moved only into those branches: a
    /// future has the size of its largest branch and is copied several times before it runs.
    pub fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
        caller_is_near: bool,
    ) -> impl Future<Output = Response<ReplyBody>> + Send {
        let (mut head, body) = request.into_parts();
        async move {
            let config = self.live.load();
            // This comes first: neither admission nor a key may depend on a header that is not forwarded.
            if head.headers.contains_key(CONNECTION) {
                drop_unsent(&config, &mut head.headers);
            }
            let kind = if head.method == Method::POST { kind_of(&config, &head.uri) } else { RouteKind::Other };
            let similar = if kind == RouteKind::Other { similar_route(&head) } else { None };
            let route = match (kind, &similar) {
                (RouteKind::Other, Some(_)) => Route::Similar,
                (RouteKind::Other, None) => Route::Passthrough,
                (RouteKind::Embeddings | RouteKind::Deployment, _) => Route::Embeddings,
            };
            let pattern = || similar.as_ref().map(|route| route.pattern()).or_else(|| pattern(kind, head.uri.path()));
            let span = self.flow.tracer.request(&head, pattern);
            let plan = CompressionPlan::new(config.compression, caller_is_near, &head.headers);
            // A request that is dropped from here on is recorded as cancelled.
            let mut guard = RequestGuard::begin(&self.metrics, route, span);
            // Admission comes before the body is read, so a refused request takes no memory.
            let owner = self.accepted_owner(&config, &head.headers);
            let finished = match self.admission_limit.admit(&head.headers, owner) {
                Err(rejection) => self.overloaded(rejection),
                Ok(admission) if let Some(similar) = similar => {
                    let request = Request::from_parts(head, body);
                    Box::pin(self.similar(&config, request, (similar, admission), &guard)).await
                }
                Ok(admission) if kind == RouteKind::Other => {
                    let (request, forward_context) =
                        (Request::from_parts(head, body), ForwardContext::new(&config, &guard.span));
                    Box::pin(self.other(request, admission, forward_context)).await
                }
                Ok(mut admission) => match self.read_head(&head) {
                    Err(bad) => self.refuse_control(bad),
                    Ok((controls, cors)) => {
                        let request = (&head, body);
                        let finished = match self.fast_path(&config, request, controls, &mut admission, &guard).await {
                            FastPath::Hit(finished) => self.admit_reply(finished, admission),
                            FastPath::Refused(finished) => finished,
                            FastPath::Unread(bypass, body) => {
                                let forward_context =
                                    ForwardContext::new(&config, &guard.span).until(guard.deadline(&config));
                                let request = Request::from_parts(head, body);
                                Box::pin(self.bypass(request, bypass.into(), admission, forward_context)).await
                            }
                            FastPath::Miss(received) => self.miss(head, received, admission, &guard.span).await,
                        };
                        self.with_cors(cors, finished)
                    }
                },
            };
            // CORS headers are stored by now, so they are stored without the `vary` of compression.
            guard.ended(compress(plan, finished, &self.metrics.requests))
        }
    }
}

/// Returns the route of a similarity request. At a path that the upstream may know, only POST is one.
fn similar_route(head: &request::Parts) -> Option<Box<SimilarRoute>> {
    SimilarRoute::of(&head.uri).filter(|route| route.is_own || head.method == Method::POST).map(Box::new)
}

/// Classifies a path by its upstream path. The end of our own path is nearly always sufficient.
fn kind_of(config: &Config, uri: &Uri) -> RouteKind {
    match classify_path(uri.path()) {
        RouteKind::Other => target_uri(config, uri).map_or(RouteKind::Other, |uri| classify_path(uri.path())),
        kind => kind,
    }
}
