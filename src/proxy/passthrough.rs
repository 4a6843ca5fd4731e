//! Passes requests other than embeddings to the upstream unchanged, streamed in both directions.

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, LOCATION, UPGRADE};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio::time::{Instant, timeout_at};

use super::admission::Admission;
use super::finished::Finished;
use super::intake::called_uri;
use super::metering::BypassCost;
use super::traced::{forwarded, opened_as};
use super::{Proxy, ReplyBody};
use crate::config::{Config, UpstreamTarget};
use crate::observe::metrics::{Outcome, Rejection};
use crate::observe::traces::Span;
use crate::process::errors::BoxError;
use crate::serve::{BodyError, TimedBody};
use crate::upstream::{
    BodyStalled, ClientBody, ForwardError, ForwardedBody, UriTooLong, location_for_caller, strip_hop_by_hop,
};

/// Context of one forwarded request.
#[derive(Clone, Copy)]
pub(super) struct ForwardContext<'a> {
    /// The configuration in force when the request arrived.
    pub(super) config: &'a Config,
    /// The span of the request.
    pub(super) span: &'a Span,
    /// Deadline for the begin of its response, if any.
    deadline: Option<Instant>,
    /// Expected cost, if the body of an embeddings request was read.
    pub(super) cost: Option<&'a BypassCost>,
}

impl<'a> ForwardContext<'a> {
    pub(super) const fn new(config: &'a Config, span: &'a Span) -> Self {
        Self { config, span, deadline: None, cost: None }
    }

    pub(super) const fn until(self, deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..self }
    }

    pub(super) const fn costing(self, cost: &'a BypassCost) -> Self {
        Self { cost: Some(cost), ..self }
    }
}

impl Proxy {
    pub(super) async fn pass_through(
        &self,
        request: Request<Incoming>,
        admission: Admission,
        forward_context: ForwardContext<'_>,
    ) -> Finished {
        // CONNECT requests a tunnel to any host, which only a forward proxy provides.
        if request.method() == Method::CONNECT {
            return self.replies.misdirected("CONNECT is not supported: this is a reverse proxy.");
        }
        if request.method() == Method::TRACE {
            return self.replies.trace_refused();
        }
        let (head, body) = request.into_parts();
        let preflight = self.cors.preflight(&head);
        let request = Request::from_parts(head, timed(forward_context.config, body));
        let finished = self.forward(request, admission, forward_context).await;
        if let Some(preflight) = preflight {
            self.cors.learn_preflight(&preflight, &finished);
        }
        finished
    }

    /// Forwards a request and its response, and connects both sides if they switch protocols. The response must begin
    /// before the deadline, if there is one.
    pub(super) async fn forward(
        &self,
        mut request: Request<ClientBody>,
        admission: Admission,
        forward_context: ForwardContext<'_>,
    ) -> Finished {
        // hyper keeps the upgrade in the request's extensions, so it is taken before the request is sent on.
        let client_upgrade = wants_websocket(request.headers()).then(|| hyper::upgrade::on(&mut request));
        let uri = match called_uri(forward_context.config, request.uri()) {
            Ok(uri) => uri,
            Err(error) => return self.refuse_path(error),
        };
        let ours = request.uri().path_and_query().cloned();
        let mut request = to_upstream(request, uri.clone(), client_upgrade.is_some());
        let call = forwarded(forward_context.span, &request);
        // The upstream continues the trace below this call, not beside it.
        call.context().write(request.headers_mut());
        let opened = match forward_context.deadline {
            Some(deadline) => {
                timeout_at(deadline, self.client.forward(request)).await.unwrap_or(Err(ForwardError::Late))
            }
            None => self.client.forward(request).await,
        };
        opened_as(call, &opened);
        match opened {
            Err(error) => self.not_forwarded(&error),
            Ok(mut response) => {
                // An unchanged redirect within the upstream would lead the client past vecho.
                if let (Some(ours), UpstreamTarget::Http(base)) = (&ours, &forward_context.config.upstream.target) {
                    map_location(response.headers_mut(), |location| location_for_caller(base, ours, &uri, location));
                }
                if response.status() == StatusCode::SWITCHING_PROTOCOLS
                    && let Some(client_upgrade) = client_upgrade
                {
                    // The permit ends here: an upgraded connection can stay open for hours.
                    self.connect(client_upgrade, hyper::upgrade::on(&mut response));
                    return Finished::new(to_client(response, true), Outcome::Forwarded);
                }
                Finished::new(to_client(response, false), Outcome::Forwarded).of_upstream().admitted(admission)
            }
        }
    }

    fn not_forwarded(&self, error: &ForwardError) -> Finished {
        if matches!(error, ForwardError::RequestStalled) {
            self.metrics.requests.rejected(Rejection::BodyTimeout);
        }
        self.replies.not_forwarded(error)
    }

    pub(super) fn refuse_path(&self, error: UriTooLong) -> Finished {
        self.metrics.requests.rejected(Rejection::Header);
        self.replies.too_long(error)
    }

    /// Copies bytes between the two upgraded connections until either side closes or vecho stops.
    fn connect(&self, client_upgrade: OnUpgrade, upstream_upgrade: OnUpgrade) {
        self.tunnels.spawn_until_stop(async move {
            match tokio::try_join!(client_upgrade, upstream_upgrade) {
                Ok((client, upstream)) => {
                    let ended = copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(upstream)).await;
                    tracing::debug!(error = ended.err().map(tracing::field::display), "an upgraded connection ended");
                }
                Err(error) => tracing::debug!(%error, "an upgrade was not completed"),
            }
        });
    }
}

/// Creates a request body that fails if the client stops sending.
pub(super) fn timed(config: &Config, body: Incoming) -> ClientBody {
    ClientBody::streamed(TimedBody::new(body, config.limits.body_timeout).map_err(to_body_error))
}

/// Converts an error to the upstream client's types, which distinguish a stalled body from an aborted one.
fn to_body_error(error: BodyError) -> BoxError {
    match error {
        BodyError::Stalled(_) | BodyError::Late => BodyStalled.into(),
        BodyError::Cut(_) => error.into(),
    }
}

/// Returns true if a client requests a WebSocket. Other upgrades, such as curl's `h2c`, concern only the client's own
/// connection and are not forwarded.
fn wants_websocket(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(UPGRADE).and_then(|value| value.to_str().ok());
    upgrade.is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
}

fn to_upstream(mut request: Request<ClientBody>, uri: http::Uri, upgrade: bool) -> Request<ClientBody> {
    *request.uri_mut() = uri;
    // Calls to the upstream use HTTP/1.1, also for a client that came by HTTP/2.
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    strip_hop_by_hop(headers);
    let ours: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().starts_with("x-vecho-")).cloned().collect();
    // The body determines the length again, and the expectation was already met on the client's connection.
    for name in ours.iter().chain(&[HOST, EXPECT]) {
        headers.remove(name);
    }
    // A length of 0 would not be written again, and some servers require it.
    if headers.get(CONTENT_LENGTH).is_none_or(|length| length != "0") {
        headers.remove(CONTENT_LENGTH);
    }
    // The handshake of a WebSocket needs two of the hop-by-hop headers that were just removed.
    if upgrade {
        switch_to_websocket(headers);
    }
    request
}

/// Replaces the `location` of a response with the result of `mapped`, if there is one.
pub(super) fn map_location(headers: &mut HeaderMap, mapped: impl FnOnce(&HeaderValue) -> Option<HeaderValue>) {
    if let Some(location) = headers.get_mut(LOCATION)
        && let Some(mapped) = mapped(location)
    {
        *location = mapped;
    }
}

fn to_client(response: Response<ForwardedBody>, upgrade: bool) -> Response<ReplyBody> {
    let mut response = response.map(|body| match body {
        ForwardedBody::Streamed(incoming) => ReplyBody::streamed(incoming),
        ForwardedBody::Whole(bytes) => ReplyBody::whole(bytes),
    });
    *response.version_mut() = Version::HTTP_11;
    strip_hop_by_hop(response.headers_mut());
    if upgrade {
        switch_to_websocket(response.headers_mut());
    }
    response
}

fn switch_to_websocket(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}
