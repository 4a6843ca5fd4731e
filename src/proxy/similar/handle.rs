//! Handles one similarity request, from its head to its response.

use std::sync::Arc;

use http::{Method, Request, request};
use http_body::Body as _;
use hyper::body::Incoming;

use super::SimilarRoute;
use super::route::TEI_PATH;
use super::score::{Scored, Similar};
use super::unranked::Unranked;
use crate::config::{Config, FallbackMode};
use crate::flow::{Controls, RequestContext};
use crate::observe::metrics::{Rejection, RequestUsage};
use crate::observe::traces::Span;
use crate::proxy::admission::Admission;
use crate::proxy::controls::read_controls;
use crate::proxy::embeddings::{Miss, head_bytes};
use crate::proxy::fast_path::{Received, ReceivedBody, Unreceived};
use crate::proxy::finished::Finished;
use crate::proxy::intake::{path_model, read_origin};
use crate::proxy::notes::{Notes, mark_cut, tell_fallback};
use crate::proxy::passthrough::{ForwardContext, timed};
use crate::proxy::request_guard::RequestGuard;
use crate::proxy::{Proxy, ReplyBody, traced};
use crate::upstream::classify_path;
use crate::wire::{
    Bypass, BypassCause, SimilarFault, SimilarForm, SimilarRequest, rank, similar_bytes, write_ranking, write_scores,
};

/// Maximum number of attempts for one request. Another attempt follows if the model changes between two parts.
const MAX_ATTEMPTS: usize = 2;

impl Proxy {
    /// Answers a similarity request. At TEI's path, a request that cannot be ranked is forwarded unchanged.
    pub(in crate::proxy) async fn similar(
        &self,
        config: &Arc<Config>,
        request: Request<Incoming>,
        (route, mut admission): (Box<SimilarRoute>, Admission),
        guard: &RequestGuard<'_>,
    ) -> Finished {
        let (head, body) = request.into_parts();
        if head.method != Method::POST {
            return self.replies.only_post();
        }
        let controls = match read_controls(&head.headers) {
            Ok(read) => without_mocks(read.controls),
            Err(bad) => return self.refuse_control(bad),
        };
        let deadline = guard.deadline(config);
        if !route.is_own && body.size_hint().lower() > config.limits.max_body_bytes as u64 {
            // Without this route, such a request would reach the upstream.
            let forward_context = ForwardContext::new(config, &guard.span).until(deadline);
            let request = Request::from_parts(head, timed(config, body));
            return self.bypass(request, Bypass::TooLarge.into(), admission, forward_context).await;
        }
        let ReceivedBody { body, encoded } = match self.receive(config, (&head, body), &mut admission).await {
            Ok(received) => received,
            Err(Unreceived::Refused(finished)) => return *finished,
            Err(Unreceived::Unread(bypass, _)) if route.is_own => {
                return self.replies.unsupported_body(bypass);
            }
            Err(Unreceived::Unread(bypass, body)) => {
                let forward_context = ForwardContext::new(config, &guard.span).until(deadline);
                return self.bypass(Request::from_parts(head, *body), bypass.into(), admission, forward_context).await;
            }
        };
        let (config, now_ms) = (Arc::clone(config), self.flow.clock.now_ms());
        let context = RequestContext { config, deadline, now_ms, controls, trace: guard.span.context() };
        let received = Received { context, body, encoded, key: None };
        let ranked = self.rank(&head, &received, &route, (&mut admission, &guard.span)).await;
        match ranked {
            Ok(finished) => self.admit_reply(finished, admission),
            Err(_) if !route.is_own => {
                let cause = BypassCause::other_path(TEI_PATH);
                self.send_up(Miss { head, received, span: &guard.span }, cause, admission).await
            }
            Err(Unranked::NoRoom) => self.overloaded(Rejection::InflightBytes),
            Err(Unranked::Fault(fault)) => self.replies.bad_similar(&fault),
            Err(Unranked::NoVectors(finished)) => self.admit_reply(*finished, admission),
            Err(Unranked::ModelChanged { .. } | Unranked::NoEmbeddings) => self
                .replies
                .no_vectors("The model changed during the request, and changed again at the second attempt."),
        }
    }

    async fn rank(
        &self,
        head: &request::Parts,
        received: &Received,
        route: &SimilarRoute,
        (admission, span): (&mut Admission, &Span),
    ) -> Result<Finished, Unranked> {
        if !admission.reserve(similar_bytes(&received.body) + head_bytes(&head.headers)) {
            return Err(Unranked::NoRoom);
        }
        let context = received.context.clone();
        let token = self.token(&context.config, &head.headers);
        let origin = read_origin(&context.config, &route.embeddings, &head.headers, token)
            .map_err(|error| self.refuse_path(error))?;
        let request = SimilarRequest::read(&received.body, path_model(classify_path(route.embeddings.path())))?;
        if !route.is_own && request.form == SimilarForm::Ranking {
            // A service behind vecho may know another kind of request at this path.
            return Err(SimilarFault::new(None, "The body is not in TEI's form.").into());
        }
        let (may_be_forwarded, now_ms) = (!route.is_own && !request.names_model, context.now_ms);
        if may_be_forwarded && self.tei.must_forward(now_ms) {
            return Err(Unranked::NoEmbeddings);
        }
        let ranked = self.attempt(Similar { request, context, origin, span }, admission).await;
        match &ranked {
            Ok(_) if may_be_forwarded => self.tei.ranked(),
            Err(Unranked::NoVectors(finished)) if may_be_forwarded => {
                self.tei.refused(finished.response.status(), now_ms);
            }
            _ => {}
        }
        ranked
    }

    async fn attempt(&self, mut similar: Similar<'_>, admission: &mut Admission) -> Result<Finished, Unranked> {
        let mut billed_tokens = 0;
        for _ in 1..MAX_ATTEMPTS {
            match self.score(&similar, admission).await {
                Err(Unranked::ModelChanged { billed_tokens: tokens }) => billed_tokens += tokens,
                scored => return scored.map(|scored| self.write_similar(&similar, scored)),
            }
            // Vectors that were fetched since the request began are as new as it demands.
            let controls = &mut similar.context.controls;
            if std::mem::take(&mut controls.no_cache) {
                controls.max_age_ms = Some(0);
            }
        }
        let mut scored = self.score(&similar, admission).await?;
        scored.source_counts.billed += billed_tokens;
        Ok(self.write_similar(&similar, scored))
    }

    /// Writes the answer. Only now the request is counted, each of its inputs once.
    fn write_similar(&self, similar: &Similar<'_>, scored: Scored) -> Finished {
        let account = self.account(&scored);
        let Scored { scores, model, source_counts, prompt_tokens, call_headers, fallback, cut, .. } = scored;
        let model = model.unwrap_or_default();
        traced::served(similar.span, &source_counts, &model);
        let body = match similar.request.form {
            SimilarForm::Ranking => {
                let ranked = rank(&scores, similar.request.top_k, similar.request.threshold);
                write_ranking(&ranked, &model, prompt_tokens)
            }
            SimilarForm::Scores => write_scores(&scores),
        };
        let notes = Notes::new(&source_counts, &model);
        let mut finished = self.replies.answer(notes, call_headers, ReplyBody::whole(body));
        mark_cut(finished.response.headers_mut(), cut);
        if let Some(measure) = &fallback {
            tell_fallback(finished.response.headers_mut(), measure);
        }
        let Some(account) = account else { return finished };
        source_counts.count(&self.metrics, &account);
        finished.about(RequestUsage { named: Arc::clone(account.named()), inputs: source_counts.inputs() })
    }
}

/// Excludes mocks: a ranking of made-up vectors looks like a real one but means nothing.
fn without_mocks(controls: Controls) -> Controls {
    let fallback = controls.fallback.map_or(FallbackMode::Stale, |asked| asked.min(FallbackMode::Stale));
    Controls { fallback: Some(fallback), ..controls }
}
