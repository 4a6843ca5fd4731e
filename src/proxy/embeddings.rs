//! Embeddings requests that the fast path did not answer: the flow answers them, or they pass through unchanged.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, request};
use hyper::body::Incoming;

use super::admission::Admission;
use super::fast_path::Received;
use super::finished::Finished;
use super::intake::{called_uri, read_origin};
use super::labels::RequestLabels;
use super::metering::{BypassCost, BypassMeter};
use super::notes::{Notes, mark_bypass, mark_cut, tell_fallback};
use super::passthrough::{ForwardContext, map_location, timed};
use super::reading::read_admitted;
use super::{Proxy, ReplyBody, traced};
use crate::cache::reply_cache::{self, Validity};
use crate::config::{Config, UpstreamTarget};
use crate::flow::{Answer, EmbedJob, FlowOutcome, RequestOrigin, SourceCounts};
use crate::key::Key;
use crate::observe::metrics::{RequestUsage, UsageAccount};
use crate::observe::traces::{Span, attribute};
use crate::upstream::{ClientBody, Failure, location_for_caller, resembles_embeddings};
use crate::wire::{Bypass, BypassCause};
use futures_util::future::BoxFuture;

/// Responses up to this size are built whole; larger ones are rendered while they are sent.
const WHOLE_BYTES: usize = 64 * 1024;

/// A request that the reply cache did not answer.
pub(super) struct Miss<'a> {
    pub(super) head: request::Parts,
    pub(super) received: Received,
    pub(super) span: &'a Span,
}

impl Proxy {
    /// Answers a request that the reply cache did not answer.
    ///
    /// Large or rarely used parts of its future are in separate boxes. Allocators have blocks of up to about a kilobyte
    /// at hand; a single box of several kilobytes would need a search.
    pub(super) fn miss<'a>(
        &'a self,
        head: request::Parts,
        received: Received,
        admission: Admission,
        span: &'a Span,
    ) -> BoxFuture<'a, Finished> {
        Box::pin(self.answer(Box::new(Miss { head, received, span }), admission))
    }

    async fn answer(&self, miss: Box<Miss<'_>>, mut admission: Admission) -> Finished {
        let (config, headers) = (&miss.received.context.config, &miss.head.headers);
        let origin = match read_origin(config, &miss.head.uri, headers, self.token(config, headers)) {
            Ok(origin) => origin,
            Err(error) => return self.refuse_path(error),
        };
        let (mut job, asked) = match understand(&miss, origin, &mut admission) {
            Ok(understood) => understood,
            Err(cause) => return self.send_up(*miss, cause, admission).await,
        };
        let cut = match self.flow.fit(&mut job).await {
            Ok(cut) => cut,
            Err(unfit) => return Finished { subject: asked.subject(), ..self.unfit(unfit) },
        };
        // The reply cache keeps no mark of cut inputs.
        let wanted_key = miss.received.key.filter(|_| cut == 0);
        let outcome = self.flow.answer(&job).await;
        let finished = match outcome {
            FlowOutcome::Answer(answer) => {
                // Only an answer opens an account, because the number of accounts is bounded.
                let account = asked.account(&self.metrics, &answer.rendering.model);
                let mut finished = self.write(*answer, account, (wanted_key, &miss));
                mark_cut(finished.response.headers_mut(), cut);
                return self.admit_reply(finished, admission);
            }
            FlowOutcome::Refused(failure) => self.refused(&failure, &miss),
            FlowOutcome::InvalidAnswer(reply) => {
                self.metrics.requests.bypass(Bypass::UnreadableAnswer);
                self.replies.unreadable(*reply)
            }
            FlowOutcome::NotCached => self.not_cached(),
            FlowOutcome::PassThrough(bypass) => {
                let finished = self.send_up(*miss, bypass.into(), admission).await;
                return Finished { subject: asked.subject(), ..finished };
            }
        };
        self.admit_reply(Finished { subject: asked.subject(), ..finished }, admission)
    }

    /// Returns the upstream's rejection. A redirect within the upstream's own address is mapped for the caller.
    fn refused(&self, failure: &Failure, miss: &Miss<'_>) -> Finished {
        let mut finished = self.no_answer(failure);
        let (config, uri) = (&miss.received.context.config, &miss.head.uri);
        if let (Some(ours), UpstreamTarget::Http(base)) = (uri.path_and_query(), &config.upstream.target)
            && let Ok(called) = called_uri(config, uri)
        {
            let map = |location: &HeaderValue| location_for_caller(base, ours, &called, location);
            map_location(finished.response.headers_mut(), map);
        }
        finished
    }

    /// Forwards a request that was read but cannot be cached.
    pub(super) async fn send_up(&self, miss: Miss<'_>, cause: BypassCause, mut admission: Admission) -> Finished {
        let Miss { head, received: Received { context, body, encoded, .. }, span } = miss;
        // Memory for parsing and answering is not needed any more, only that of the bodies.
        admission.reduce_to(body.len() + encoded.as_ref().map_or(0, Bytes::len));
        if context.controls.only_if_cached {
            return self.not_cached();
        }
        let cost = if self.flow.spend.is_off() { BypassCost::default() } else { BypassCost::of_body(&body) };
        // The original body is sent, since the forwarded headers describe it.
        let body = ClientBody::whole(encoded.unwrap_or(body));
        let forward_context = ForwardContext::new(&context.config, span).until(context.deadline).costing(&cost);
        Box::pin(self.bypass(Request::from_parts(head, body), cause, admission, forward_context)).await
    }

    /// Passes through a request to another path. If the path resembles an embeddings path, the response is marked.
    pub(super) async fn other(
        &self,
        request: Request<Incoming>,
        admission: Admission,
        forward_context: ForwardContext<'_>,
    ) -> Finished {
        let path = request.uri().path();
        if request.method() != Method::POST || !resembles_embeddings(path) {
            return self.pass_through(request, admission, forward_context).await;
        }
        let (cause, request) = (BypassCause::other_path(path), request.map(|body| timed(forward_context.config, body)));
        self.bypass(request, cause, admission, forward_context).await
    }

    /// Writes a response, and stores the finished body of a full hit in the reply cache.
    fn write(&self, answer: Answer, account: Arc<UsageAccount>, (key, miss): (Option<Key>, &Miss<'_>)) -> Finished {
        answer.source_counts.count(&self.metrics, &account);
        traced::served(miss.span, &answer.source_counts, &answer.rendering.model);
        let subject = RequestUsage { named: Arc::clone(account.named()), inputs: answer.source_counts.inputs() };
        let notes = Notes::new(&answer.source_counts, &answer.rendering.model);
        let largest = answer.rendering.largest_len();
        // `wants` also marks the request as seen, so it runs for every answer, not only for full hits.
        let wanted = key.filter(|key| self.reply_cache.wants(key, largest as u64));
        let lasting = answer.validity.zip(wanted);
        let body = if let Some((validity, key)) = lasting {
            let bytes = answer.rendering.to_lasting_bytes();
            self.keep(
                key,
                parts(&bytes, &answer.source_counts, &notes, (validity, account)),
                &miss.received.context.config,
            );
            ReplyBody::whole(bytes)
        } else if largest <= WHOLE_BYTES {
            ReplyBody::whole(answer.rendering.to_bytes())
        } else {
            ReplyBody::rendered(answer.rendering, answer.reservation)
        };
        let mut finished = self.replies.answer(notes, answer.call_headers, body);
        if let Some(measure) = &answer.fallback {
            tell_fallback(finished.response.headers_mut(), measure);
        }
        finished.about(subject)
    }

    /// Stores a finished reply if the configuration that its request was read under is still in force. That
    /// configuration determines which requests are cacheable, and a change of it clears the reply cache.
    fn keep(&self, key: Key, parts: reply_cache::ReplyParts, received_under: &Arc<Config>) {
        self.reply_cache.put(key, parts);
        // The check comes after the insertion: a later change of the configuration clears the cache including this
        // reply.
        if Arc::ptr_eq(&self.live.load(), received_under) {
            self.metrics.cache.answer_stored();
        } else {
            self.reply_cache.stored().remove(&key);
        }
    }

    /// Forwards a request unchanged. The response to an embeddings request must begin before its usual deadline. A budget
    /// must cover it.
    pub(super) async fn bypass(
        &self,
        mut request: Request<ClientBody>,
        cause: BypassCause,
        admission: Admission,
        forward_context: ForwardContext<'_>,
    ) -> Finished {
        let meter = match BypassMeter::begin(&self.flow.spend, &mut request, forward_context.cost) {
            Ok(meter) => meter,
            Err(refusal) => return self.no_answer(&Failure::over_budget(&refusal)),
        };
        self.metrics.requests.bypass(cause.reason);
        forward_context.span.text(attribute::BYPASS_REASON, cause.reason.label());
        let mut finished = self.forward(request, admission, forward_context).await;
        mark_bypass(finished.response.headers_mut(), &cause);
        if let Some(mut meter) = meter {
            meter.answered(finished.response.status());
            finished.response.body_mut().meter(meter);
        }
        // A request that was not forwarded keeps the outcome of its error.
        if finished.outcome == crate::observe::metrics::Outcome::Forwarded {
            finished.outcome = crate::observe::metrics::Outcome::Bypass;
        }
        finished
    }
}

/// Parses a request within its admission.
fn understand<'a>(
    miss: &'a Miss<'_>,
    origin: RequestOrigin<'a>,
    admission: &mut Admission,
) -> Result<(Box<EmbedJob<'a>>, RequestLabels), BypassCause> {
    let Received { context, body, .. } = &miss.received;
    // The call of a fetch holds headers of the request, too.
    let head_bytes = head_bytes(&miss.head.headers);
    let request = read_admitted((body, head_bytes), &context.config, &origin, admission)?;
    traced::asked(miss.span, &request);
    let asked = RequestLabels::new(&request, &origin);
    // A fetch may outlast the request with its body, so it shares the reservation.
    let (context, body, charge) = (context.clone(), body.clone(), admission.share());
    Ok((Box::new(EmbedJob { context, request, body, charge, origin }), asked))
}

/// Returns the size of all names and values.
pub(super) fn head_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// Returns the parts of a finished reply for the reply cache.
fn parts(
    body: &Bytes,
    source_counts: &SourceCounts,
    notes: &Notes,
    (validity, account): (Validity, Arc<UsageAccount>),
) -> reply_cache::ReplyParts {
    // From now on all inputs are in memory, regardless of their tier.
    let as_hit = SourceCounts::of_hit(source_counts.stored(), source_counts.saved);
    reply_cache::ReplyParts {
        body: body.clone(),
        inputs: as_hit.memory,
        tokens: as_hit.saved,
        headers: notes.kept(&as_hit),
        account,
        validity,
    }
}
