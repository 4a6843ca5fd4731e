//! Execution of one upstream call to its end: its attempts, the waits between them, the breaker, and the final verdict.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::time::{Instant, timeout_at};

use super::answered::{Answered, CallInfo};
use super::breaker::Pass;
use super::call::Call;
use super::next_step::{FIRST_AGAIN, NextStep, Tries};
use super::pacing::{PaceTurn, Pacers};
use super::permit::CallPermit;
use super::piece::Piece;
use super::retry::{Budget, retry_deadline};
use super::traced::{begin_call, tell};
use super::{
    Breaker, Class, Failure, LaneProperties, Outage, SpaceHealth, UnavailableReason, UpstreamClient, UpstreamReply,
    marks_fallback,
};
use crate::config::{Config, Live};
use crate::observe::logs::{Throttled, shorten_for_log};
use crate::observe::metrics::{CallOutcome, Metrics, RetryReason};
use crate::observe::traces::Span;
use crate::spend::SpendGuard;
use crate::wire::{AnswerFault, Expected, ReadAnswer, read_answer_in_slices};

/// Makes an attempt. A probe of the breaker that takes longer than a refused connection lets other calls pass.
async fn beside_others<T>(pass: &Pass<'_>, attempt: impl Future<Output = T>) -> T {
    // Pinned and polled by reference, so the attempt survives the end of the first wait.
    let mut attempt = std::pin::pin!(attempt);
    if pass.is_probe() {
        if let Ok(ended) = timeout_at(Instant::now() + PROBE_ALONE, attempt.as_mut()).await {
            return ended;
        }
        pass.let_others_pass();
    }
    attempt.await
}

/// Time for which a probe of the breaker is the only call.
const PROBE_ALONE: Duration = Duration::from_millis(500);

/// Shortest time after which a call counts as unusually long, however quick its lane is.
const LEAST_OVERDUE: Duration = Duration::from_mins(1);
const OVERDUE: &str = "an upstream call takes unusually long; still waiting for its answer";

/// Runs upstream calls. Each one runs to its end: attempts, back-off, what the breaker allows and learns, and the final
/// verdict on a failure.
pub struct CallExecutor {
    pub(super) client: Arc<UpstreamClient>,
    pub(super) breaker: Arc<Breaker>,
    pub(super) health: Arc<SpaceHealth>,
    budget: Budget,
    pub(super) spend: Arc<SpendGuard>,
    pub(super) live: Live,
    pub(super) metrics: Arc<Metrics>,
    throttled: Throttled,
    /// Pacers of its calls, unless they are off.
    pub(super) pacers: Option<Pacers>,
    /// Name of the target that it calls, if there are several.
    pub(super) target: Option<Arc<str>>,
}

impl CallExecutor {
    /// Creates an executor over one client and its breaker, with metrics and log for its reports, and the guard that
    /// counts what calls cost.
    pub fn new(
        client: Arc<UpstreamClient>,
        breaker: Arc<Breaker>,
        live: Live,
        (metrics, throttled, spend): (Arc<Metrics>, Throttled, Arc<SpendGuard>),
    ) -> Self {
        let (health, budget) = (Arc::default(), Budget::new());
        Self { client, breaker, health, budget, spend, live, metrics, throttled, pacers: None, target: None }
    }

    /// Returns the same executor, for the target of this name.
    #[must_use]
    pub fn named(self, target: &Arc<str>) -> Self {
        Self { target: Some(Arc::clone(target)), ..self }
    }

    /// Returns the same executor, whose calls are paced.
    #[must_use]
    pub fn paced(self, pacers: Option<Pacers>) -> Self {
        Self { pacers, ..self }
    }

    /// Returns the failures of each space.
    pub const fn health(&self) -> &Arc<SpaceHealth> {
        &self.health
    }

    /// Repeats a call until it returns vectors, or a failure that another attempt would not fix.
    pub(super) async fn execute(
        &self,
        properties: &LaneProperties,
        call: &Call<'_>,
        permit: &mut CallPermit,
    ) -> Result<Answered, Failure> {
        // One configuration holds for all attempts, also across a reload.
        let config = self.live.load();
        let (mut tries, deadlines) = (Tries::default(), call.deadlines());
        self.budget.deposit(config.retry.budget_ratio);
        let mut turn = self.next_turn((properties, call), permit, (false, Duration::ZERO)).await?;
        loop {
            // The breaker is asked before each attempt, since it may have opened during the wait.
            let Some(pass) = self.breaker.pass() else {
                return Err(self.breaker_open());
            };
            if tries.attempts > 0 {
                // The first attempt is covered by a reservation. A repetition may cost as much again.
                self.check_budget(properties)?;
            }
            tries.attempts += 1;
            let begun = Instant::now();
            let failure = match self.try_once((properties, call), permit, (&pass, turn, tries.attempts)).await {
                Ok(answered) => {
                    pass.answered();
                    return Ok(answered);
                }
                Err(failure) => failure,
            };
            let took = begun.elapsed();
            let deadline = retry_deadline(&deadlines, failure.class, took);
            let next = match call.next(&failure, &mut tries, (deadline, took, &config)) {
                _ if self.is_held((properties, call), &failure, &mut tries) => NextStep::WaitForTurn,
                // The budget is asked last, because asking takes one of its tokens.
                NextStep::RetryAfter(_, why) if !self.may_repeat(why, (properties, call), &config) => NextStep::GiveUp,
                next => next,
            };
            // The pass ends before the wait, because a waiting probe would block all other calls.
            call.tell(pass, &failure, (&next, &config));
            let repeated = match next {
                NextStep::GiveUp => None,
                NextStep::WaitForTurn => {
                    // A call that is refused again and again leaves the first turn to others.
                    let turn = self.next_turn((properties, call), permit, (tries.held <= FIRST_AGAIN, took)).await;
                    turn.ok().map(|turn| (turn, RetryReason::Throttled))
                }
                NextStep::RetryAfter(wait, reason) => {
                    tracing::debug!(cause = failure.detail, wait_ms = wait.as_millis(), "the call is repeated");
                    let turn = self.turn_after((properties, call), permit, (wait, deadline)).await;
                    turn.map(|turn| (turn, reason))
                }
            };
            // If another attempt is not possible in time, the caller gets the failure of this one.
            let Some((next_turn, reason)) = repeated else {
                return Err(self.judged(failure, properties, (call, &config)).await);
            };
            turn = next_turn;
            self.metrics.upstream.retry(reason);
        }
    }

    /// Makes one attempt in its turn, and notes what its end says.
    async fn try_once(
        &self,
        (properties, call): (&LaneProperties, &Call<'_>),
        permit: &mut CallPermit,
        (pass, mut turn, number): (&Pass<'_>, Option<PaceTurn>, u32),
    ) -> Result<Answered, Failure> {
        if let Some(turn) = &mut turn {
            turn.begin(call.tokens());
        }
        let result = beside_others(pass, self.attempt(properties, call, (permit, number))).await;
        if let Some(turn) = turn {
            let answered = result.as_ref().map(|answered| (&answered.call.headers, answered.call.prompt_tokens));
            turn.ended(answered, call.is_merged());
        }
        if result.is_ok() {
            self.health.answered(&properties.model);
            // One known input per lane is enough for the test in judgement.rs.
            call.batch.iter().flat_map(Piece::inputs).take(1).for_each(|input| {
                call.lane.known_good.remember(input);
            });
        }
        result
    }

    /// Makes one attempt.
    async fn attempt(
        &self,
        properties: &LaneProperties,
        call: &Call<'_>,
        (permit, number): (&mut CallPermit, u32),
    ) -> Result<Answered, Failure> {
        let begun = Instant::now();
        let span = begin_call(properties, call, (number, self.target.as_deref()));
        let reply = self.post(properties, call, (&span, permit)).await;
        let result = match reply {
            Ok(reply) => read_reply(properties, call, reply).await,
            Err(failure) => Err(failure),
        };
        let (outcome, took) = (outcome_of(&result), begun.elapsed());
        self.count(outcome, took, call);
        tell(&span, &result, outcome);
        // The cost is counted before the request learns of the answer and gives its reservation back.
        self.bill(properties, &result, call.tokens());
        result.map(|(answer, reply)| self.answered(answer, reply, (call, &span, took)))
    }

    pub(super) fn count(&self, outcome: CallOutcome, took: Duration, call: &Call<'_>) {
        self.metrics.upstream.call(outcome, took, call.inputs, call.batch.len());
        if let Some(target) = &self.target {
            self.metrics.targets.call(target, outcome);
        }
    }

    pub(super) fn breaker_open(&self) -> Failure {
        let detail = format!("the breaker is open after repeated failures, the last one: {}", self.breaker.cause());
        Failure::unavailable(UnavailableReason::BreakerOpen, detail).with_outage(Outage::Unreachable)
    }

    fn answered(
        &self,
        answer: ReadAnswer,
        reply: UpstreamReply,
        (call, span, took): (&Call<'_>, &Span, Duration),
    ) -> Answered {
        let info = CallInfo {
            headers: reply.headers,
            model: answer.model,
            prompt_tokens: answer.prompt_tokens,
            members: answer.members,
            inputs: answer.vectors.len(),
            has_repetitions: call.has_repetitions,
            trace: span.context(),
            target: self.target.clone(),
        };
        Answered { vectors: answer.vectors, prompt_tokens: answer.prompt_tokens, call: Arc::new(info), took }
    }

    /// Returns true if a call may be repeated. A repetition on another connection is always allowed. Others are allowed
    /// while the space does not count as unavailable and the retry budget lasts. A call that does not wait here after a
    /// refusal for its rate is not repeated either: it waits for every target that has refused it.
    fn may_repeat(
        &self,
        reason: RetryReason,
        (properties, call): (&LaneProperties, &Call<'_>),
        config: &Config,
    ) -> bool {
        match reason {
            RetryReason::ReusedConnection => true,
            RetryReason::Throttled if !call.waits && self.learns_limits() => false,
            // `withdraw` takes a token, so it comes last.
            _ => !self.is_failing(properties, config) && self.budget.withdraw(),
        }
    }

    /// Sends one attempt. A call that takes much longer than earlier calls of its lane gives its permit back and
    /// continues, so calls to other models do not wait for it. Its requests wait until their own deadline. If a
    /// limit is configured, they are told that the call is late. A merged call fails instead, so its requests are
    /// sent separately.
    async fn post(
        &self,
        properties: &LaneProperties,
        call: &Call<'_>,
        (span, permit): (&Span, &mut CallPermit),
    ) -> Result<UpstreamReply, Failure> {
        let trace = span.context();
        let mut posting = std::pin::pin!(self.client.post(properties, call.body.clone(), &trace, call.reservation));
        let config = self.live.load();
        if call.is_merged() {
            // On a timeout the call is dropped here, and `Batcher::isolate` sends its requests separately.
            let reply = call.lane.with_merge_timeout(config.batch.target_time, posting).await;
            return reply.unwrap_or_else(|| {
                Err(Failure::unavailable(
                    UnavailableReason::MergeTimeout,
                    "the call for several requests took unusually long",
                ))
            });
        }
        let least = config.upstream.headers_timeout.unwrap_or(LEAST_OVERDUE);
        let (begun, mut waited) = (Instant::now(), Duration::ZERO);
        // Calls that end meanwhile may show that all calls take longer now.
        // The loop ends when the bound no longer grows.
        while let Some(overdue_after) = call.lane.overdue_after(call.inputs, least).filter(|after| *after > waited) {
            if let Ok(reply) = timeout_at(begun + overdue_after, posting.as_mut()).await {
                return reply;
            }
            waited = overdue_after;
        }
        // No duration of this lane is known, so no call of it counts as overdue.
        if waited.is_zero() {
            return posting.await;
        }
        // The call is overdue. It continues, because it is paid for, but leaves the usual permits to other calls.
        permit.swap_for_extra_permit();
        if config.upstream.headers_timeout.is_some() {
            call.batch.iter().for_each(Piece::report_late);
        }
        if self.throttled.admits(OVERDUE) {
            tracing::warn!(
                model = &*shorten_for_log(properties.space.model_name()),
                waited_s = waited.as_secs(),
                "{OVERDUE}"
            );
        }
        posting.await
    }

    /// Returns true if the space counts as unavailable; then no call is repeated.
    pub(super) fn is_failing(&self, properties: &LaneProperties, config: &Config) -> bool {
        let enough = config.breaker.failures;
        enough > 0 && self.health.failures(&properties.model) >= enough
    }
}

pub(super) fn outcome_of(result: &Result<(ReadAnswer, UpstreamReply), Failure>) -> CallOutcome {
    match result {
        Ok(_) => CallOutcome::Ok,
        Err(failure) => match failure.class {
            Class::Unavailable(_) => CallOutcome::Unavailable,
            Class::Throttled | Class::NotInTime { .. } => CallOutcome::Throttled,
            Class::Refused | Class::OverBudget(_) => CallOutcome::Refused,
            Class::InvalidAnswer(..) => CallOutcome::Unreadable,
        },
    }
}

pub(super) async fn read_reply(
    properties: &LaneProperties,
    call: &Call<'_>,
    reply: UpstreamReply,
) -> Result<(ReadAnswer, UpstreamReply), Failure> {
    if reply.status != StatusCode::OK {
        return Err(Failure::of_reply(reply));
    }
    let LaneProperties { asked_dimension: asked, known_dimension: known, base64, .. } = *properties;
    let expected = Expected { inputs: call.inputs, asked, known, base64 };
    match read_answer_in_slices(&reply.body, &expected).await {
        Ok(_) if marks_fallback(&reply.headers) => Err(upstream_fallback()),
        Err(AnswerFault::UpstreamFallback) => Err(upstream_fallback()),
        Ok(answer) => Ok((answer, reply)),
        Err(cause) => Err(Failure::invalid_answer(cause, call.encoding, reply)),
    }
}

/// Returns the failure for an answer that another vecho marks as its own fallback. Such an answer must not be stored;
/// this instance's fallback decides what its callers get.
fn upstream_fallback() -> Failure {
    Failure::unavailable(UnavailableReason::UpstreamFallback, "the upstream answered only with mocks or stale entries")
}
