//! Failures of upstream calls, with their class and their remedy.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::wire::{Encoding, Unreadable, error_code, error_fields};

/// A whole answer of the upstream.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers as they came.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// A call that gave no vectors. Shared by all who waited for it.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What kind of failure it is, which decides what happens next.
    pub class: Class,
    /// What the upstream said, if it said anything.
    pub reply: Option<Box<Reply>>,
    /// The cause in a few words, for logs and for errors of our own. Holds no secret and no input.
    pub detail: String,
    /// Why the upstream counts as unavailable, where it does: only then a mock may take the place of an answer.
    pub outage: Option<Outage>,
    /// True if it answers the caller's own bytes.
    pub is_own: bool,
}

/// By which measure the upstream counts as unavailable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Outage {
    /// No connection can be made, or the breaker is open because none could.
    #[error("unreachable")]
    Unreachable,
    /// Several different requests for one model failed, with no answer in between.
    #[error("failing; requests={requests}")]
    Failing {
        /// How many, as far as they are counted.
        requests: u32,
    },
    /// Another vecho behind this one answers in place of its own upstream.
    #[error("upstream-fallback")]
    StandsIn,
}

/// The four classes of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The upstream could not be reached or failed by itself: worth a retry, then a fallback.
    Unavailable(Why),
    /// The upstream asked for patience.
    Throttled,
    /// The upstream refused the request: verbatim, at once.
    Refused,
    /// The upstream answered something that is not believed.
    Unreadable(Unreadable, Encoding),
}

/// Of what a call carried too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooLarge {
    /// Inputs: another call will meet the same bound.
    Inputs,
    /// Tokens or bytes: this call's inputs were large.
    Size,
}

/// Why the upstream counts as unavailable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Name resolution, TCP or TLS failed.
    Connect,
    /// A deadline passed.
    Timeout,
    /// A call for several requests took unusually long. One of them may hold it up.
    Held,
    /// The connection ended before the first byte of an answer.
    Dropped,
    /// The connection ended before the answer was complete.
    Cut,
    /// It answered with a status that means "not now".
    Status,
    /// Another vecho had no answer of its own upstream.
    StandIn,
    /// It failed so often that it is left alone for a while.
    BreakerOpen,
    /// The request's time was over before its turn came; the upstream was not asked.
    Expired,
    /// The process is stopping.
    Stopping,
}

impl Failure {
    fn new(class: Class, reply: Option<Reply>, detail: impl Into<String>) -> Self {
        Self { class, reply: reply.map(Box::new), detail: detail.into(), outage: None, is_own: false }
    }

    /// The same failure as part of an outage.
    #[must_use]
    pub fn with_outage(self, outage: Outage) -> Self {
        Self { outage: Some(outage), ..self }
    }

    /// The measure of the outage that it is part of, or else the kind of failure, for headers.
    pub fn measure(&self) -> String {
        match (self.outage, self.class, &self.reply) {
            (Some(outage), ..) => outage.to_string(),
            (None, _, Some(reply)) => format!("status; code={}", reply.status.as_u16()),
            (None, Class::Unavailable(Why::Timeout | Why::Expired), None) => "timeout".to_owned(),
            (None, ..) => "no-answer".to_owned(),
        }
    }

    /// A failure without a reply.
    pub fn unavailable(why: Why, detail: impl Into<String>) -> Self {
        Self::new(Class::Unavailable(why), None, detail)
    }

    /// The failure that an answer other than a success means.
    pub fn of_reply(reply: Reply) -> Self {
        let class = match reply.status {
            StatusCode::TOO_MANY_REQUESTS if error_code(&reply.body) == "insufficient_quota" => Class::Refused,
            StatusCode::TOO_MANY_REQUESTS => Class::Throttled,
            status if means_unavailable(status) => Class::Unavailable(Why::Status),
            _ => Class::Refused,
        };
        let detail = format!("the upstream answered {}", reply.status.as_u16());
        Self::new(class, Some(reply), detail)
    }

    /// The failure of an answer that is larger than what is read. It would be as large the next time.
    pub fn too_large(asked: Encoding) -> Self {
        let detail = "the upstream's answer is larger than upstream.max_answer_bytes";
        Self::new(Class::Unreadable(Unreadable::TooLarge, asked), None, detail)
    }

    /// The failure of an answer for which there is no memory. In smaller calls there may be.
    pub fn no_room(asked: Encoding) -> Self {
        let detail = "the upstream's answer has no room in the fifth of memory.limit_mb that answers under way share";
        Self::new(Class::Unreadable(Unreadable::NoRoom, asked), None, detail)
    }

    /// The failure of an answer that cannot be believed; it is kept so that it can be passed on.
    pub fn unreadable(cause: Unreadable, asked: Encoding, reply: Reply) -> Self {
        let detail = format!("the upstream's answer cannot be used: {cause}");
        Self::new(Class::Unreadable(cause, asked), Some(reply), detail)
    }

    /// Returns true if fewer inputs in a call might pass, and of what there were too many.
    pub fn too_large_by(&self) -> Option<TooLarge> {
        if matches!(self.class, Class::Unreadable(Unreadable::NoRoom, _)) {
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
            Class::Unavailable(why) => matches!(why, Why::Status | Why::Held | Why::Dropped | Why::Cut),
            Class::Throttled => false,
            Class::Unreadable(..) => true,
            Class::Refused => !self.concerns_the_caller(),
        }
    }

    /// Returns true if fewer calls at once, or smaller ones, may fare better.
    pub fn may_be_of_the_load(&self) -> bool {
        match self.class {
            Class::Unavailable(why) => matches!(why, Why::Status | Why::Dropped | Why::Cut),
            Class::Throttled => true,
            Class::Refused | Class::Unreadable(..) => false,
        }
    }

    /// Returns true if the form of a call may have caused this, so that the caller's own request may fare better.
    pub fn may_be_of_the_form(&self) -> bool {
        match self.class {
            Class::Unavailable(why) => why == Why::Status,
            Class::Throttled => false,
            Class::Unreadable(..) => true,
            Class::Refused => !self.concerns_the_caller(),
        }
    }

    /// Returns true if the caller is refused whatever it asks: its credential, or its quota. Not a 403: services refuse texts with
    /// it, too.
    fn concerns_the_caller(&self) -> bool {
        let statuses = [StatusCode::UNAUTHORIZED, StatusCode::TOO_MANY_REQUESTS];
        self.reply.as_ref().is_some_and(|reply| statuses.contains(&reply.status))
    }

    /// Returns true if a large call may have been refused for its size although the answer names no limit: it names no other
    /// cause either.
    pub fn may_be_of_the_size(&self) -> bool {
        let Some(reply) = &self.reply else { return false };
        let may_be = matches!(reply.status.as_u16(), 400 | 413 | 422 | 500);
        may_be && !names_a_cause(&reply.body)
    }

    /// Returns true if asking again may help, as far as the answer itself tells.
    pub fn may_be_retried(&self) -> bool {
        let vetoed = self.header("x-should-retry") == Some("false");
        let retryable = match self.class {
            Class::Unavailable(why) => !matches!(why, Why::BreakerOpen | Why::Expired | Why::Stopping | Why::Timeout),
            Class::Throttled => true,
            Class::Refused | Class::Unreadable(..) => false,
        };
        retryable && !vetoed
    }

    /// How long the upstream wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        let millis = self.header("retry-after-ms").and_then(|text| text.parse::<f64>().ok()).map(|ms| ms / 1000.0);
        let seconds = || self.header("retry-after").and_then(|text| text.parse::<f64>().ok());
        match millis.or_else(seconds) {
            Some(wait) => Duration::try_from_secs_f64(wait).ok(),
            // One that is over, by this machine's clock, says nothing.
            None => self.left_alone_until().and_then(|at| at.duration_since(SystemTime::now()).ok()),
        }
    }

    /// The other form of `retry-after` (RFC 9110, section 10.2.3).
    fn left_alone_until(&self) -> Option<SystemTime> {
        httpdate::parse_http_date(self.header("retry-after")?).ok()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.reply.as_ref()?.headers.get(name)?.to_str().ok()
    }
}

/// 500, 502, 503, 504 and the range that content delivery networks use for "origin not reached".
fn means_unavailable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504 | 520..=529)
}

/// Returns true if an error body names a member or a code, as errors do that have nothing to do with size.
fn names_a_cause(body: &[u8]) -> bool {
    let fields = error_fields(body);
    !fields.param.is_empty() || fields.code.chars().any(char::is_alphabetic)
}

/// Returns true if one call asked for more than its caller may ask for in a minute: no wait helps. OpenAI's words are
/// "Request too large for ... on tokens per min (TPM): Limit 40000, Requested 40080".
fn exceeds_the_rate(body: &[u8]) -> bool {
    String::from_utf8_lossy(body).to_lowercase().contains("request too large")
}

/// Servers word their limits differently; a wrong guess here costs a few smaller calls, never a wrong answer.
fn size_complaint(body: &[u8]) -> Option<TooLarge> {
    let fields = error_fields(body);
    let text = String::from_utf8_lossy(body).to_lowercase();
    let has_one_of = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if fields.code == "max_tokens_per_request" || fields.kind == "max_tokens_per_request" {
        return Some(TooLarge::Size);
    }
    // One input that is too long stays too long however few others go with it.
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
