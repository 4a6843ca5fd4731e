//! Fast path of an embeddings request: answers it from the reply cache, or determines that it needs the full path.

use std::sync::Arc;

use bytes::Bytes;
use http::request;
use http_body::Body;
use hyper::body::Incoming;

use super::Proxy;
use super::admission::Admission;
use super::controls::{BadControl, ReadControls, read_controls};
use super::cors::CorsRequest;
use super::finished::Finished;
use super::intake::{answer_key, body_codings};
use super::passthrough::timed;
use super::request_guard::RequestGuard;
use super::traced::served;
use crate::config::Config;
use crate::flow::{Calls, Controls, RequestContext, SourceCounts, Unfit};
use crate::key::Key;
use crate::observe::metrics::Rejection;
use crate::observe::traces::Span;
use crate::serve::{BodyBounds, BodyError, CollectError, collect_bounded};
use crate::upstream::{Class, ClientBody, Failure};
use crate::wire::Bypass;

/// Result of the fast path.
pub(super) enum FastPath {
    /// The reply cache had the answer.
    Hit(Finished),
    /// The request is rejected.
    Refused(Finished),
    /// The body was not read, because it is not JSON or has a coding that cannot be decoded.
    Unread(Bypass, ClientBody),
    /// The reply cache has no answer.
    Miss(Received),
}

/// A body that was read.
pub(super) struct ReceivedBody {
    /// The body without its content codings.
    pub(super) body: Bytes,
    /// The original body, if it differs.
    pub(super) encoded: Option<Bytes>,
}

/// Result of a request whose body was not read. The contents are rare and large, so they are in boxes.
pub(super) enum Unreceived {
    /// The request is rejected.
    Refused(Box<Finished>),
    /// The body is not JSON, or has a coding that cannot be decoded.
    Unread(Bypass, Box<ClientBody>),
}

/// The data read from a request, apart from its head.
pub(super) struct Received {
    pub(super) context: RequestContext,
    /// The body without its content codings.
    pub(super) body: Bytes,
    /// The original body, if it differs.
    pub(super) encoded: Option<Bytes>,
    /// Key in the reply cache, if a cached reply is allowed.
    pub(super) key: Option<Key>,
}

impl Proxy {
    /// Reads the caller's controls, and the CORS request if a web page sent it.
    pub(super) fn read_head(&self, head: &request::Parts) -> Result<(Controls, Option<Box<CorsRequest>>), BadControl> {
        let ReadControls { mut controls, has_origin } = read_controls(&head.headers)?;
        if !has_origin {
            return Ok((controls, None));
        }
        let cors = self.cors.request(head.uri.path(), &head.headers);
        let is_known = cors.as_deref().is_none_or(|cors| self.cors.knows(cors));
        if !is_known && !controls.only_if_cached {
            // The page can read no response until the upstream has answered its origin once.
            (controls.no_cache, controls.calls) = (true, Calls::Own);
        }
        Ok((controls, cors))
    }

    /// Adds the CORS headers to a response for a web page.
    pub(super) fn with_cors(&self, cors: Option<Box<CorsRequest>>, mut finished: Finished) -> Finished {
        if let Some(cors) = cors {
            self.cors.complete(&cors, &mut finished);
        }
        finished
    }

    /// Reads a request and looks it up in the reply cache.
    pub(super) async fn fast_path(
        &self,
        config: &Arc<Config>,
        (head, body): (&request::Parts, Incoming),
        controls: Controls,
        admission: &mut Admission,
        guard: &RequestGuard<'_>,
    ) -> FastPath {
        let ReceivedBody { body, encoded } = match self.receive(config, (head, body), admission).await {
            Ok(received) => received,
            Err(Unreceived::Refused(finished)) => return FastPath::Refused(*finished),
            Err(Unreceived::Unread(..)) if controls.only_if_cached => return FastPath::Refused(self.not_cached()),
            Err(Unreceived::Unread(bypass, body)) => return FastPath::Unread(bypass, *body),
        };
        // The time is read after the body has arrived, which may take long.
        let now_ms = self.flow.clock.now_ms();
        let key = controls.allow_rendered().then(|| answer_key(config, &self.answer_secret, head, &body));
        if let Some(finished) = key.and_then(|key| self.at_hand(&key, now_ms, &guard.span)) {
            return FastPath::Hit(finished);
        }
        let (config, deadline, trace) = (Arc::clone(config), guard.deadline(config), guard.span.context());
        let context = RequestContext { config, deadline, now_ms, controls, trace };
        FastPath::Miss(Received { context, body, encoded, key })
    }

    /// Reads the body of a request, and decodes its content codings.
    pub(super) async fn receive(
        &self,
        config: &Config,
        (head, body): (&request::Parts, Incoming),
        admission: &mut Admission,
    ) -> Result<ReceivedBody, Unreceived> {
        let codings = match body_codings(&head.headers) {
            Ok(codings) => codings,
            Err(bypass) => return Err(Unreceived::Unread(bypass, Box::new(timed(config, body)))),
        };
        let mut body = match self.read_body(config, body, admission).await {
            Ok(body) => body,
            Err(finished) => return Err(Unreceived::Refused(Box::new(finished))),
        };
        let mut encoded = None;
        if !codings.is_empty() {
            let (max_bytes, admit) = (config.limits.max_body_bytes, |bytes| admission.reserve(bytes));
            match Box::pin(self.decoder.decode(codings, body.clone(), max_bytes, admit)).await {
                // The original bytes are kept for the case that the request must pass through.
                Ok(Some(plain)) => encoded = Some(std::mem::replace(&mut body, plain)),
                Ok(None) => {
                    return Err(Unreceived::Unread(Bypass::ContentEncoding, Box::new(ClientBody::whole(body))));
                }
                Err(error) => return Err(Unreceived::Refused(Box::new(self.refuse_body(&error)))),
            }
        }
        Ok(ReceivedBody { body, encoded })
    }

    async fn read_body(&self, config: &Config, body: Incoming, admission: &mut Admission) -> Result<Bytes, Finished> {
        let limits = &config.limits;
        let stated_bytes = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        // Rejects the request before its body is read. A body over its own limit gets a more specific error below.
        if stated_bytes <= limits.max_body_bytes && !admission.has_room(stated_bytes) {
            return Err(self.overloaded(Rejection::InflightBytes));
        }
        let bounds =
            BodyBounds { max_bytes: limits.max_body_bytes, pause: limits.body_timeout, whole: limits.request_timeout };
        collect_bounded(body, bounds, |bytes| admission.reserve(bytes)).await.map_err(|error| self.refuse_body(&error))
    }

    /// Returns the cached reply to exactly this request, if there is one and the caller's credential allows it.
    fn at_hand(&self, key: &Key, now_ms: u64, span: &Span) -> Option<Finished> {
        let may_have = |accepted_credential| self.flow.accepted_credentials.holds(&accepted_credential, now_ms);
        let found = self.reply_cache.get(key, now_ms, self.flow.tiers.generation());
        let answer = found.filter(|answer| answer.validity.accepted_credential.is_none_or(may_have));
        // A reply that this credential may not have counts as a miss.
        self.reply_cache.count(answer.is_some());
        let answer = answer?;
        let source_counts = SourceCounts::of_hit(answer.inputs, answer.tokens);
        source_counts.count(&self.metrics, &answer.account);
        served(span, &source_counts, &answer.validity.identity.model);
        Some(self.replies.stored(&answer))
    }

    fn refuse_body(&self, error: &CollectError) -> Finished {
        match error {
            CollectError::NoRoom => self.metrics.requests.rejected(Rejection::InflightBytes),
            CollectError::TooLarge { .. } => self.metrics.requests.rejected(Rejection::BodyTooLarge),
            CollectError::Incomplete(BodyError::Stalled(_) | BodyError::Late) => {
                self.metrics.requests.rejected(Rejection::BodyTimeout);
            }
            // The client ended the request, so no limit of vecho has rejected it.
            CollectError::Incomplete(BodyError::Cut(_)) => {}
        }
        self.replies.bad_body(error)
    }

    pub(super) fn refuse_control(&self, bad: BadControl) -> Finished {
        self.metrics.requests.rejected(Rejection::BadControl);
        self.replies.bad_control(bad)
    }

    pub(super) fn not_cached(&self) -> Finished {
        self.metrics.requests.rejected(Rejection::OnlyIfCached);
        self.replies.not_cached()
    }

    /// Returns the response to a request whose fetch has failed.
    pub(super) fn no_answer(&self, failure: &Failure) -> Finished {
        if matches!(failure.class, Class::OverBudget(_)) {
            self.metrics.requests.rejected(Rejection::Budget);
        }
        self.replies.refused(failure)
    }

    pub(super) fn unfit(&self, unfit: Unfit) -> Finished {
        self.metrics.requests.rejected(Rejection::LongInput);
        self.replies.unfit(unfit)
    }

    /// Reserves the memory of a reply until it is sent. Replaces the reply by an error if the memory is not available.
    pub(super) fn admit_reply(&self, finished: Finished, mut admission: Admission) -> Finished {
        match finished.response.body().held_bytes() {
            Some(bytes) if !admission.hold_reply(bytes) => self.overloaded(Rejection::InflightBytes),
            _ => finished.admitted(admission),
        }
    }

    pub(super) fn overloaded(&self, rejection: Rejection) -> Finished {
        self.metrics.requests.rejected(rejection);
        self.replies.overloaded(rejection)
    }
}

impl Controls {
    /// Returns true if a cached reply may be used: it has the common expiry of its records but not their ages.
    const fn allow_rendered(&self) -> bool {
        !self.no_cache && !self.no_store && self.max_age_ms.is_none()
    }
}
