//! Failures of upstream calls, with their class and their remedy.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::spend::OverBudget;
use crate::wire::{AnswerFault, Encoding, error_code, error_fields};

/// A complete answer of the upstream.
#[derive(Clone, Debug)]
pub struct UpstreamReply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers as they arrived.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// A call without vectors. Shared by all requests that waited for it.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Kind of failure, which decides the next step.
    pub class: Class,
    /// Reply of the upstream, if there was one.
    pub reply: Option<Box<UpstreamReply>>,
    /// Short description of the cause, for logs and for errors of our own. Contains no secret and no input.
    pub detail: String,
    /// Reason why the upstream counts as unavailable, if it does. Only then may a mock replace an answer.
    pub outage: Option<Outage>,
    /// True if it answers the caller's own bytes.
    pub is_own: bool,
}

/// Reason why the upstream counts as unavailable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Outage {
    /// No connection can be made, or the breaker is open because none could.
    #[error("unreachable")]
    Unreachable,
    /// Several different requests for one model failed, with no answer in between.
    #[error("failing; requests={requests}")]
    Failing {
        /// Number of such requests, up to the counted maximum.
        requests: u32,
    },
    /// Another vecho behind this one answers with a fallback for its own upstream.
    #[error("upstream-fallback")]
    UpstreamFallback,
}

/// What a caller is told about a budget that does not cover its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetShortage {
    /// Seconds until the budget is filled again.
    pub wait_s: u64,
    /// True if no wait helps, because the request costs more than the budget of a whole day.
    pub is_hopeless: bool,
}

/// The six classes of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The upstream could not be reached or failed by itself: retried, then answered by a fallback.
    Unavailable(UnavailableReason),
    /// The upstream limits the rate of requests.
    Throttled,
    /// The call was not made, because its turn inside the service's rate limits would come after the deadline.
    NotInTime {
        /// Seconds after which a call would probably get its turn.
        wait_s: u64,
    },
    /// A budget does not cover the call, so it was not made.
    OverBudget(BudgetShortage),
    /// The upstream refused the request: passed on verbatim, without a retry.
    Refused,
    /// The upstream sent an answer that failed validation.
    InvalidAnswer(AnswerFault, Encoding),
}

/// Limit that a call exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooLarge {
    /// Number of inputs: other calls will meet the same limit.
    Inputs,
    /// Tokens or bytes: the inputs of this call were large.
    Size,
}

/// Kind of unavailability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnavailableReason {
    /// Name resolution, TCP or TLS failed.
    Connect,
    /// A deadline passed.
    Timeout,
    /// A call for several requests took unusually long. One of them may delay it.
    MergeTimeout,
    /// The connection ended before the first byte of an answer.
    Dropped,
    /// The upstream ended the call before the first byte of an answer, and kept the connection (HTTP/2).
    Reset,
    /// The connection ended before the answer was complete.
    Cut,
    /// It answered with a status that means "not now".
    Status,
    /// Another vecho behind this one had only a fallback to offer.
    UpstreamFallback,
    /// The upstream failed so often that the breaker stops calls for a while.
    BreakerOpen,
    /// The request's deadline passed before its turn; the upstream was not called.
    Expired,
    /// The process is stopping.
    Stopping,
}

impl UnavailableReason {
    /// Returns true if the upstream began with the call and then failed, so the call itself may be the cause.
    pub const fn may_be_of_the_call(self) -> bool {
        matches!(self, Self::Status) || self.has_ended_early()
    }

    /// Returns true if the call ended without a whole answer.
    pub(super) const fn has_ended_early(self) -> bool {
        matches!(self, Self::Dropped | Self::Reset | Self::Cut)
    }
}

impl Failure {
    fn new(class: Class, reply: Option<UpstreamReply>, detail: impl Into<String>) -> Self {
        Self { class, reply: reply.map(Box::new), detail: detail.into(), outage: None, is_own: false }
    }

    /// Returns the same failure as part of an outage.
    #[must_use]
    pub fn with_outage(self, outage: Outage) -> Self {
        Self { outage: Some(outage), ..self }
    }

    /// Returns the kind of the outage, or else the kind of failure, for headers.
    pub fn measure(&self) -> String {
        match (self.outage, self.class, &self.reply) {
            (Some(outage), ..) => outage.to_string(),
            (None, Class::OverBudget(_), _) => "budget".to_owned(),
            (None, Class::NotInTime { .. }, _) => "rate".to_owned(),
            (None, _, Some(reply)) => format!("status; code={}", reply.status.as_u16()),
            (None, Class::Unavailable(UnavailableReason::Timeout | UnavailableReason::Expired), None) => {
                "timeout".to_owned()
            }
            (None, ..) => "no-answer".to_owned(),
        }
    }

    /// Creates a failure without a reply.
    pub fn unavailable(reason: UnavailableReason, detail: impl Into<String>) -> Self {
        Self::new(Class::Unavailable(reason), None, detail)
    }

    /// Creates the failure for a call that a budget does not cover.
    pub fn over_budget(refusal: &OverBudget) -> Self {
        let shortage = BudgetShortage { wait_s: refusal.wait_s(), is_hopeless: refusal.is_hopeless() };
        Self::new(Class::OverBudget(shortage), None, refusal.to_string())
    }

    /// Creates the failure for a call that would have to wait this long for its turn.
    pub fn not_in_time(wait: Duration) -> Self {
        // A client that comes back too early would only wait again.
        let wait_s = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
        let wait_s = wait_s.max(1);
        let detail = format!(
            "its turn inside the rate limit, the upstream's or a set one, would come in {wait_s} s, after its deadline \
             (limits.request_timeout)"
        );
        Self::new(Class::NotInTime { wait_s }, None, detail)
    }

    /// Creates the failure for a reply other than a success.
    pub fn of_reply(reply: UpstreamReply) -> Self {
        let class = match reply.status {
            // OpenAI reports a spent quota as 429, but no wait helps.
            StatusCode::TOO_MANY_REQUESTS if error_code(&reply.body) == "insufficient_quota" => Class::Refused,
            StatusCode::TOO_MANY_REQUESTS => Class::Throttled,
            status if means_unavailable(status) => Class::Unavailable(UnavailableReason::Status),
            _ => Class::Refused,
        };
        let detail = format!("the upstream answered {}", reply.status.as_u16());
        Self::new(class, Some(reply), detail)
    }

    /// Creates the failure for an answer above the size limit. A repetition would be as large.
    pub fn too_large(asked: Encoding) -> Self {
        let detail = "the upstream's answer is larger than upstream.max_answer_bytes";
        Self::new(Class::InvalidAnswer(AnswerFault::TooLarge, asked), None, detail)
    }

    /// Creates the failure for an answer that does not fit in memory. The answers to smaller calls may fit.
    pub fn no_room(asked: Encoding) -> Self {
        let detail = "the upstream's answer has no room in the fifth of memory.limit_mb that answers under way share";
        Self::new(Class::InvalidAnswer(AnswerFault::NoRoom, asked), None, detail)
    }

    /// Creates the failure for an answer that failed validation. The answer is kept, so it can be passed on.
    pub fn invalid_answer(cause: AnswerFault, asked: Encoding, reply: UpstreamReply) -> Self {
        let detail = format!("the upstream's answer cannot be used: {cause}");
        Self::new(Class::InvalidAnswer(cause, asked), Some(reply), detail)
    }

    /// Returns the limit that the call exceeded, if a call with fewer inputs might succeed.
    pub fn too_large_by(&self) -> Option<TooLarge> {
        if matches!(self.class, Class::InvalidAnswer(AnswerFault::NoRoom, _)) {
            return Some(TooLarge::Size);
        }
        let reply = self.reply.as_ref().filter(|_| matches!(self.class, Class::Refused | Class::Throttled))?;
        match reply.status {
            StatusCode::TOO_MANY_REQUESTS => exceeds_the_rate(&reply.body).then_some(TooLarge::Size),
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => {
                size_complaint(&reply.body)
            }
            _ => None,
        }
    }

    /// Returns true if another request in the same call, with the same credential and model, may have caused this.
    pub fn may_be_a_neighbours(&self) -> bool {
        match self.class {
            Class::Unavailable(reason) => reason == UnavailableReason::MergeTimeout || reason.may_be_of_the_call(),
            Class::Throttled | Class::NotInTime { .. } | Class::OverBudget(_) => false,
            Class::InvalidAnswer(..) => true,
            Class::Refused => !self.concerns_the_caller(),
        }
    }

    /// Returns true if the requests of a merged call may succeed one by one. Their deadlines differ, and the earliest of
    /// them limits the wait of the merged call.
    pub fn is_of_the_merge(&self) -> bool {
        let is_late = matches!(self.class, Class::NotInTime { .. });
        is_late || self.may_be_a_neighbours() || self.may_be_of_the_load()
    }

    /// Returns true if fewer concurrent calls, or smaller ones, may succeed.
    pub fn may_be_of_the_load(&self) -> bool {
        match self.class {
            Class::Unavailable(reason) => reason.may_be_of_the_call(),
            Class::Throttled => true,
            Class::Refused | Class::NotInTime { .. } | Class::OverBudget(_) | Class::InvalidAnswer(..) => false,
        }
    }

    /// Returns true if the form of a call may have caused this, so the caller's own request may succeed.
    pub fn may_be_of_the_form(&self) -> bool {
        match self.class {
            Class::Unavailable(reason) => reason == UnavailableReason::Status,
            Class::Throttled | Class::NotInTime { .. } | Class::OverBudget(_) => false,
            Class::InvalidAnswer(..) => true,
            Class::Refused => !self.concerns_the_caller(),
        }
    }

    /// Returns true if the caller is refused regardless of its request, because of its credential or its quota. Status
    /// 403 does not count, because services also refuse texts with it.
    pub fn concerns_the_caller(&self) -> bool {
        let statuses = [StatusCode::UNAUTHORIZED, StatusCode::TOO_MANY_REQUESTS];
        self.reply.as_ref().is_some_and(|reply| statuses.contains(&reply.status))
    }

    /// Returns true if a large call may have been refused for its size although the answer names no limit. The answer
    /// must name no other cause either.
    pub fn may_be_of_the_size(&self) -> bool {
        let Some(reply) = &self.reply else { return false };
        let may_be = matches!(reply.status.as_u16(), 400 | 413 | 422 | 500);
        may_be && !names_a_cause(&reply.body)
    }

    /// Returns true if a retry may help, judged by the answer alone.
    pub fn may_be_retried(&self) -> bool {
        // OpenAI's services send this header, and its SDKs obey it.
        let vetoed = self.header("x-should-retry") == Some("false");
        let retryable = match self.class {
            Class::Unavailable(reason) => !matches!(
                reason,
                UnavailableReason::BreakerOpen
                    | UnavailableReason::Expired
                    | UnavailableReason::Stopping
                    | UnavailableReason::Timeout
            ),
            // A call that exceeds all of a limit is refused each time.
            Class::Throttled => self.too_large_by().is_none(),
            Class::Refused | Class::NotInTime { .. } | Class::OverBudget(_) | Class::InvalidAnswer(..) => false,
        };
        retryable && !vetoed
    }

    /// Returns the wait that the upstream asks for.
    pub fn retry_after(&self) -> Option<Duration> {
        // OpenAI's SDKs also read the header in milliseconds first, and accept fractions of a second.
        let millis = self.header("retry-after-ms").and_then(|text| text.parse::<f64>().ok()).map(|ms| ms / 1000.0);
        let seconds = || self.header("retry-after").and_then(|text| text.parse::<f64>().ok());
        match millis.or_else(seconds) {
            // The conversion rejects negative and infinite numbers.
            Some(wait) => Duration::try_from_secs_f64(wait).ok(),
            // A date in the past, by this machine's clock, gives no wait.
            None => self.left_alone_until().and_then(|at| at.duration_since(SystemTime::now()).ok()),
        }
    }

    /// Parses the date form of `retry-after` (RFC 9110, section 10.2.3).
    fn left_alone_until(&self) -> Option<SystemTime> {
        httpdate::parse_http_date(self.header("retry-after")?).ok()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.reply.as_ref()?.headers.get(name)?.to_str().ok()
    }
}

/// Returns true for 500, 502, 503, 504 and the range in which content delivery networks report "origin not reached".
fn means_unavailable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504 | 520..=529)
}

/// Returns true if an error body names a member or a code, as errors do that have nothing to do with size.
fn names_a_cause(body: &[u8]) -> bool {
    let fields = error_fields(body);
    // Some servers repeat the status as a numeric `code`, which names no cause.
    !fields.param.is_empty() || fields.code.chars().any(char::is_alphabetic)
}

/// Returns true if one call exceeded the caller's limit per minute, so no wait helps. OpenAI's words are "Request too
/// large for ... on tokens per min (TPM): Limit 40000, Requested 40080".
fn exceeds_the_rate(body: &[u8]) -> bool {
    String::from_utf8_lossy(body).to_lowercase().contains("request too large")
}

/// Returns the limit that an error text complains about. Servers word their limits differently. A wrong guess costs a
/// few smaller calls, never a wrong answer.
fn size_complaint(body: &[u8]) -> Option<TooLarge> {
    let fields = error_fields(body);
    let text = String::from_utf8_lossy(body).to_lowercase();
    let has_one_of = |words: &[&str]| words.iter().any(|word| text.contains(word));
    // OpenAI names its limit of tokens by this code.
    if fields.code == "max_tokens_per_request" || fields.kind == "max_tokens_per_request" {
        return Some(TooLarge::Size);
    }
    // One input that is too long stays too long in a smaller call.
    let names_a_bound =
        has_one_of(&["max", "exceed", "too many", "too large", "at most", "limit", "should not be larger"]);
    let of_one_input = has_one_of(&[
        "context length",
        "sequence length",
        "input length",
        "one of the inputs",
        "each input",
        "per input",
        "single input",
    ]);
    if !names_a_bound || of_one_input {
        return None;
    }
    if has_one_of(&["tokens per request", "tokens per submitted batch"]) {
        return Some(TooLarge::Size);
    }
    let of_inputs = has_one_of(&[
        "array length",
        "array too long",
        "batch of",
        "batch size",
        "in one batch",
        "input array",
        "inputs",
        "number of texts",
    ]);
    of_inputs.then_some(TooLarge::Inputs)
}

#[cfg(test)]
#[path = "error_tests.rs"]
mod tests;
