//! An embeddings request: read, answered from a rendered answer or by the flow, or passed through unchanged.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, request};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::asked::Asked;
use super::controls::{BadControl, read_controls};
use super::gate::Admission;
use super::intake::{answer_key, path_model, read_origin, unreadable_head};
use super::passthrough::Way;
use super::reply::{Finished, Notes, Replies};
use super::service::Count;
use super::{Proxy, ReplyBody, traced};
use crate::answers;
use crate::config::Config;
use crate::flow::{Answer, Ask, Controls, Keep, Outcome, Tally};
use crate::key::{Key, PassingSecret};
use crate::metrics::{Account, AnswerEvent, Rejection, Subject};
use crate::serve::{BodyBounds, CollectError, collect_bounded};
use crate::traces::{Span, attribute};
use crate::upstream::{ClientBody, RouteKind, TooLong};
use crate::wire::{Bypass, read_request};

/// Answers up to this size are built whole; larger ones are written while they are sent.
const WHOLE_BYTES: usize = 64 * 1024;

/// A request that was let in and read.
struct Received<'a> {
    head: request::Parts,
    body: Bytes,
    kind: RouteKind,
    controls: Controls,
    config: &'a Arc<Config>,
    deadline: Instant,
    span: &'a Span,
}

impl Received<'_> {
    /// The key of a rendered answer, for requests without special wishes: a rendered answer knows its records'
    /// common end, not their ages.
    fn answer_key(&self, secret: &PassingSecret) -> Option<Key> {
        let controls = &self.controls;
        let has_wishes = controls.no_cache || controls.no_store || controls.max_age_ms.is_some();
        (!has_wishes).then(|| answer_key(self.config, secret, &self.head, &self.body))
    }
}

impl Proxy {
    pub(super) async fn embeddings(
        &self,
        request: Request<Incoming>,
        kind: RouteKind,
        mut admission: Admission,
        count: &Count<'_>,
    ) -> Finished {
        let config = self.live.load();
        let deadline = count.begun + config.limits.request_timeout;
        let (head, body) = request.into_parts();
        let controls = match read_controls(&head.headers) {
            Ok(controls) => controls,
            Err(bad) => return self.refuse_control(bad),
        };
        if let Some(bypass) = unreadable_head(&head.headers) {
            let body = self.timed(body);
            return if controls.only_if_cached {
                self.not_cached()
            } else {
                let way = Way { span: &count.span, deadline: Some(deadline) };
                Box::pin(self.bypass(Request::from_parts(head, body), bypass, admission, way)).await
            };
        }
        let body = match self.read_body(&config, body, &mut admission).await {
            Ok(body) => body,
            Err(finished) => return finished,
        };
        let received = Received { head, body, kind, controls, config: &config, deadline, span: &count.span };
        let key = received.answer_key(&self.answer_secret);
        match key.and_then(|key| self.at_hand(&key, &count.span)) {
            Some(finished) => finished.admitted(admission),
            None => Box::pin(self.answer(received, key, admission)).await,
        }
    }

    async fn read_body(&self, config: &Config, body: Incoming, admission: &mut Admission) -> Result<Bytes, Finished> {
        let limits = &config.limits;
        let stated_bytes = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if stated_bytes <= limits.max_body_bytes && !self.gate.has_room(stated_bytes) {
            return Err(self.overloaded(Rejection::InflightBytes));
        }
        let bounds =
            BodyBounds { max_bytes: limits.max_body_bytes, pause: limits.body_timeout, whole: limits.request_timeout };
        collect_bounded(body, bounds, |bytes| admission.reserve(bytes)).await.map_err(|error| self.refuse_body(&error))
    }

    fn refuse_body(&self, error: &CollectError) -> Finished {
        match error {
            CollectError::NoRoom => self.metrics.rejected(Rejection::InflightBytes),
            CollectError::TooLarge { .. } => self.metrics.rejected(Rejection::BodyTooLarge),
            CollectError::Stalled(_) | CollectError::Late => self.metrics.rejected(Rejection::BodyTimeout),
            CollectError::Cut(_) => {}
        }
        self.replies.bad_body(error)
    }

    fn refuse_control(&self, bad: BadControl) -> Finished {
        self.metrics.rejected(Rejection::BadControl);
        self.replies.bad_control(bad)
    }

    fn not_cached(&self) -> Finished {
        self.metrics.rejected(Rejection::OnlyIfCached);
        self.replies.not_cached()
    }

    fn overloaded(&self, rejection: Rejection) -> Finished {
        self.metrics.rejected(rejection);
        self.replies.overloaded(rejection)
    }

    /// Answers what has no rendered answer.
    async fn answer(&self, received: Received<'_>, key: Option<Key>, admission: Admission) -> Finished {
        let (outcome, asked) = match self.through_flow(&received).await {
            Ok(ended) => ended,
            Err(error) => return self.refuse_path(error),
        };
        let finished = match outcome {
            Outcome::Answer(answer) => {
                let account = asked.account(&self.metrics, &answer.rendering.model);
                return self.write(*answer, account, key, &received).admitted(admission);
            }
            Outcome::Refused(refusal) => self.replies.refused(refusal),
            Outcome::Unreadable(reply) => {
                self.metrics.bypass(Bypass::UnreadableAnswer.label());
                Replies::unreadable(*reply)
            }
            Outcome::NotCached => self.not_cached(),
            Outcome::PassThrough(_) if received.controls.only_if_cached => self.not_cached(),
            Outcome::PassThrough(bypass) => {
                let body = Full::new(received.body).map_err(|never| match never {}).boxed_unsync();
                let request = Request::from_parts(received.head, body);
                let way = Way { span: received.span, deadline: Some(received.deadline) };
                self.bypass(request, bypass, admission, way).await
            }
        };
        Finished { subject: asked.subject(), ..finished }
    }

    /// How it ended, and what it asked.
    async fn through_flow(&self, received: &Received<'_>) -> Result<(Outcome, Asked), TooLong> {
        let config = received.config;
        let origin = read_origin(config, &received.head.uri, &received.head.headers)?;
        match read_request(&received.body, &config.cache.extra_fields, path_model(received.kind)) {
            Err(bypass) => Ok((Outcome::PassThrough(bypass), Asked::default())),
            Ok(request) => {
                traced::asked(received.span, &request);
                let asked = Asked::new(&request, &received.head);
                let (controls, trace) = (received.controls, received.span.context());
                Ok((self.flow.answer(&Ask { request, origin, controls, trace }).await, asked))
            }
        }
    }

    /// The rendered answer to this very request, if it is at hand and the caller may have it.
    fn at_hand(&self, key: &Key, span: &Span) -> Option<Finished> {
        let now_ms = self.flow.clock.now_ms();
        let answer = self.answers.get(key, now_ms, self.flow.tiers.generation())?;
        if answer.voucher.is_some_and(|voucher| !self.flow.vouchers.holds(&voucher, now_ms)) {
            return None;
        }
        let tally = Tally::of_hit(answer.inputs, answer.tokens);
        tally.count(&self.metrics, &answer.account);
        traced::served(span, &tally, &answer.identity.model);
        self.metrics.answer(AnswerEvent::Served);
        Some(self.replies.stored(&answer))
    }

    /// Writes an answer, and keeps the finished body of a full hit.
    fn write(&self, answer: Answer, account: Arc<Account>, key: Option<Key>, received: &Received<'_>) -> Finished {
        answer.tally.count(&self.metrics, &account);
        traced::served(received.span, &answer.tally, &answer.rendering.model);
        let subject = Subject { named: Arc::clone(account.named()), inputs: answer.tally.inputs() };
        let notes = Notes::new(&answer.tally, &answer.rendering.model);
        let largest = answer.rendering.largest_len();
        let wanted = key.filter(|key| self.answers.wants(key, largest as u64));
        let keep = answer.keep.zip(wanted);
        let body = if let Some((keep, key)) = keep {
            let bytes = answer.rendering.to_lasting_bytes();
            self.keep(key, parts(&bytes, &answer.tally, &notes, (keep, account)), received.config);
            ReplyBody::whole(bytes)
        } else if largest <= WHOLE_BYTES {
            ReplyBody::whole(answer.rendering.to_bytes())
        } else {
            ReplyBody::rendered(answer.rendering)
        };
        self.replies.answer(&notes, answer.call_headers, body).about(subject)
    }

    /// Keeps a finished answer, if the configuration that its request was read under is still in force. Which requests
    /// may be answered hangs on it, and a change of it forgets what was kept before.
    fn keep(&self, key: Key, parts: answers::Parts, received_under: &Arc<Config>) {
        self.answers.put(key, parts);
        // Asked only now: a change from here on comes before the forgetting, which then finds this answer.
        if Arc::ptr_eq(&self.live.load(), received_under) {
            self.metrics.answer(AnswerEvent::Stored);
        } else {
            self.answers.stored().remove(&key);
        }
    }

    /// Sends an embeddings request up unchanged. Its answer has to begin by the deadline that any other answer to an
    /// embeddings request has; from there on it takes the time it takes.
    async fn bypass(
        &self,
        request: Request<ClientBody>,
        bypass: Bypass,
        admission: Admission,
        way: Way<'_>,
    ) -> Finished {
        self.metrics.bypass(bypass.label());
        way.span.text(attribute::BYPASS_REASON, bypass.label());
        let mut finished = self.forward(request, admission, way).await;
        super::reply::mark_bypass(finished.response.headers_mut(), bypass);
        if finished.outcome == crate::metrics::Outcome::Forwarded {
            finished.outcome = crate::metrics::Outcome::Bypass;
        }
        finished
    }
}

/// What is kept of a finished answer.
fn parts(body: &Bytes, tally: &Tally, notes: &Notes, (keep, account): (Keep, Arc<Account>)) -> answers::Parts {
    // Whatever tier it came from, from now on it is in memory.
    let as_hit = Tally::of_hit(tally.stored(), tally.saved);
    answers::Parts {
        body: body.clone(),
        inputs: as_hit.memory,
        tokens: as_hit.saved,
        headers: notes.kept(&as_hit),
        fresh_until_ms: keep.fresh_until_ms,
        identity: keep.identity,
        lessons: keep.lessons,
        account,
        generation: keep.generation,
        voucher: keep.voucher,
    }
}

impl Finished {
    fn admitted(self, admission: Admission) -> Self {
        Self { response: self.response.map(|body| body.admitted(admission)), ..self }
    }
}
