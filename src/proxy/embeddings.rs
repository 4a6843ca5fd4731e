//! An embeddings request that a first look did not answer: answered by the flow, or passed through unchanged.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, request};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::asked::Asked;
use super::gate::{Admission, NoRoom};
use super::glance::{Open, Read};
use super::intake::{path_model, read_origin, target_uri};
use super::passthrough::{Way, map_location};
use super::reply::{Finished, Notes};
use super::service::Count;
use super::{Proxy, ReplyBody, traced};
use crate::answers;
use crate::config::{Config, UpstreamTarget};
use crate::flow::{Answer, Ask, Keep, Outcome, Refusal, Tally};
use crate::key::Key;
use crate::metrics::{Account, Rejection, Subject};
use crate::tasks::Eventually;
use crate::traces::{Span, attribute};
use crate::upstream::{ClientBody, TooLong, classify_path, location_for_caller, resembles_embeddings};
use crate::wire::{Bypass, BypassCause, read_request, reading_bytes};

/// Answers up to this size are built whole; larger ones are written while they are sent.
const WHOLE_BYTES: usize = 64 * 1024;

/// A request that was read and is to be answered.
struct Received<'a> {
    head: request::Parts,
    read: Read,
    deadline: Instant,
    span: &'a Span,
}

/// Why a request is none for the flow.
enum NotAsked {
    /// It is not understood.
    Unread(BypassCause),
    /// There is no address for it.
    TooLong(TooLong),
    /// There is no memory for it now.
    Overloaded,
}

impl From<NoRoom> for NotAsked {
    fn from(none: NoRoom) -> Self {
        match none {
            NoRoom::Now => Self::Overloaded,
            NoRoom::Never => Self::Unread(Bypass::TooLarge.into()),
        }
    }
}

impl Proxy {
    /// Answers a request that a first look did not answer.
    ///
    /// The parts of its future that are large or seldom needed lie in boxes of their own. Up to about a kilobyte an
    /// allocator has room at hand, which a single box of several would have to be searched for.
    pub(super) fn embeddings<'a>(
        &'a self,
        head: request::Parts,
        open: Open,
        admission: Admission,
        count: &'a Count<'_>,
    ) -> Eventually<'a, Finished> {
        let span = &count.span;
        match open {
            Open::Unread(bypass, body) => {
                let way = Way { span, deadline: Some(count.begun + self.live.load().limits.request_timeout) };
                Box::pin(self.bypass(Request::from_parts(head, body), bypass.into(), admission, way))
            }
            Open::Read(read) => {
                let deadline = count.begun + read.config.limits.request_timeout;
                let received = Box::new(Received { head, read, deadline, span });
                Box::pin(self.answer(received, admission))
            }
        }
    }

    /// Answers what has no rendered answer.
    async fn answer(&self, received: Box<Received<'_>>, mut admission: Admission) -> Finished {
        let (outcome, asked) = match understand(&received, &mut admission) {
            Ok((ask, asked)) => (self.flow.answer(&ask).await, asked),
            Err(NotAsked::Unread(cause)) => return self.send_up(*received, cause, admission).await,
            Err(NotAsked::TooLong(error)) => return self.refuse_path(error),
            Err(NotAsked::Overloaded) => return self.overloaded(Rejection::InflightBytes),
        };
        let finished = match outcome {
            Outcome::Answer(answer) => {
                let account = asked.account(&self.metrics, &answer.rendering.model);
                return self.admit_reply(self.write(*answer, account, &received), admission);
            }
            Outcome::Refused(refusal) => self.refused(refusal, &received),
            Outcome::Unreadable(reply) => {
                self.metrics.bypass(Bypass::UnreadableAnswer);
                self.replies.unreadable(*reply)
            }
            Outcome::NotCached => self.not_cached(),
            Outcome::Overloaded => self.overloaded(Rejection::Memory),
            Outcome::PassThrough(bypass) => self.send_up(*received, bypass.into(), admission).await,
        };
        Finished { subject: asked.subject(), ..finished }
    }

    /// The upstream's refusal. A redirect of its own address is mapped for the caller.
    fn refused(&self, refusal: Refusal, received: &Received<'_>) -> Finished {
        let mut finished = self.replies.refused(refusal);
        let (config, uri) = (&received.read.config, &received.head.uri);
        if let (Some(ours), UpstreamTarget::Http(base)) = (uri.path_and_query(), &config.upstream.target)
            && let Ok(called) = target_uri(config, uri)
        {
            let map = |location: &HeaderValue| location_for_caller(base, ours, &called, location);
            map_location(finished.response.headers_mut(), map);
        }
        finished
    }

    /// Sends up what was read and cannot be cached.
    async fn send_up(&self, received: Received<'_>, cause: BypassCause, admission: Admission) -> Finished {
        let Received { head, read, deadline, span } = received;
        if read.controls.only_if_cached {
            return self.not_cached();
        }
        // Its headers go up with it, and they describe the body as it came.
        let body = ClientBody::whole(read.encoded.unwrap_or(read.body));
        let way = Way { span, deadline: Some(deadline) };
        Box::pin(self.bypass(Request::from_parts(head, body), cause, admission, way)).await
    }

    /// Passes through a request to a path that is none for embeddings. One that looks like it says so.
    pub(super) async fn other(&self, request: Request<Incoming>, admission: Admission, span: &Span) -> Finished {
        let path = request.uri().path();
        if request.method() != Method::POST || !resembles_embeddings(path) {
            return self.pass_through(request, admission, span).await;
        }
        let (cause, request) = (BypassCause::other_path(path), request.map(|body| self.timed(body)));
        self.bypass(request, cause, admission, Way { span, deadline: None }).await
    }

    /// Writes an answer, and keeps the finished body of a full hit.
    fn write(&self, answer: Answer, account: Arc<Account>, received: &Received<'_>) -> Finished {
        answer.tally.count(&self.metrics, &account);
        traced::served(received.span, &answer.tally, &answer.rendering.model);
        let subject = Subject { named: Arc::clone(account.named()), inputs: answer.tally.inputs() };
        let notes = Notes::new(&answer.tally, &answer.rendering.model);
        let largest = answer.rendering.largest_len();
        let wanted = received.read.key.filter(|key| self.answers.wants(key, largest as u64));
        let keep = answer.keep.zip(wanted);
        let body = if let Some((keep, key)) = keep {
            let bytes = answer.rendering.to_lasting_bytes();
            self.keep(key, parts(&bytes, &answer.tally, &notes, (keep, account)), &received.read.config);
            ReplyBody::whole(bytes)
        } else if largest <= WHOLE_BYTES {
            ReplyBody::whole(answer.rendering.to_bytes())
        } else {
            ReplyBody::rendered(answer.rendering, answer.room)
        };
        let mut finished = self.replies.answer(notes, answer.call_headers, body);
        if let Some(measure) = &answer.fallback {
            super::reply::tell_fallback(finished.response.headers_mut(), measure);
        }
        finished.about(subject)
    }

    /// Keeps a finished answer, if the configuration that its request was read under is still in force. Which requests
    /// may be answered hangs on it, and a change of it forgets what was kept before.
    fn keep(&self, key: Key, parts: answers::Parts, received_under: &Arc<Config>) {
        self.answers.put(key, parts);
        // Asked only now: a change from here on comes before the forgetting, which then finds this answer.
        if Arc::ptr_eq(&self.live.load(), received_under) {
            self.metrics.answer_stored();
        } else {
            self.answers.stored().remove(&key);
        }
    }

    /// Sends a request up unchanged. The answer to an embeddings request has to begin by the same deadline as any other.
    async fn bypass(
        &self,
        request: Request<ClientBody>,
        cause: BypassCause,
        admission: Admission,
        way: Way<'_>,
    ) -> Finished {
        self.metrics.bypass(cause.reason);
        way.span.text(attribute::BYPASS_REASON, cause.reason.label());
        let mut finished = self.forward(request, admission, way).await;
        super::reply::mark_bypass(finished.response.headers_mut(), &cause);
        if finished.outcome == crate::metrics::Outcome::Forwarded {
            finished.outcome = crate::metrics::Outcome::Bypass;
        }
        finished
    }
}

/// What a request asks. It holds what reading it takes, then what answering it does.
fn understand<'a>(received: &'a Received<'_>, admission: &mut Admission) -> Result<(Box<Ask<'a>>, Asked), NotAsked> {
    let Read { body, controls, config, .. } = &received.read;
    let origin = read_origin(config, &received.head.uri, &received.head.headers).map_err(NotAsked::TooLong)?;
    let path_model = path_model(classify_path(origin.uri.path()));
    let body_bytes = admission.held_bytes();
    admission.take(reading_bytes(body))?;
    let request = read_request(body, &config.cache.extra_fields, path_model);
    admission.hold_instead(body_bytes);
    let request = request.map_err(NotAsked::Unread)?;
    admission.take(request.answering_bytes(body.len()))?;
    traced::asked(received.span, &request);
    let asked = Asked::new(&request, &origin.uri, &received.head.headers);
    let (controls, trace) = (*controls, received.span.context());
    let (body, charge, deadline) = (body.clone(), admission.share(), received.deadline);
    Ok((Box::new(Ask { request, body, charge, deadline, origin, controls, trace }), asked))
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
        refreshes: keep.refreshes,
        voucher: keep.voucher,
    }
}
