//! Converts the result of a request to a response. Only this file chooses the statuses of the public port.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Response, StatusCode};

use super::ReplyBody;
use super::controls::BadControl;
use super::finished::Finished;
use super::notes::{Notes, REQUEST_ID, mark_bypass};
use crate::cache::reply_cache::CachedReply;
use crate::flow::{UNMEASURED, Unfit};
use crate::observe::metrics::{Outcome, Rejection, RequestUsage};
use crate::serve::{BodyError, CollectError};
use crate::upstream::{
    BudgetShortage, Class, Failure, ForwardError, UnavailableReason, UpstreamReply, UriTooLong, shown_on_errors,
};
use crate::wire::{Bypass, MAX_INPUT_TOKENS, SimilarFault, envelope};

/// Longest `retry-after` that OpenAI's SDK for Python waits for, in seconds. It retries too early after a longer one,
/// and the SDK for Node.js sleeps for hours.
const LONGEST_SDK_WAIT_S: u64 = 60;
/// The service's own code for an input that is too long.
const TOO_LONG: &str = "context_length_exceeded";

/// Factory of responses. Its only state are the ids for responses without an id of the upstream.
pub(super) struct Replies {
    id_seed: u64,
    id_start: [u8; ID_BYTES],
    ids_given: AtomicU64,
    /// Headers of a response without an upstream call, with empty values for the variable ones.
    blank: HeaderMap,
}

impl Replies {
    /// Creates a factory whose ids differ from those of every other process.
    pub(super) fn new() -> Self {
        let id_seed = RandomState::new().hash_one(0_u8);
        let mut id_start = *b"req_vecho_................................";
        write_hex(id_seed, &mut id_start[ID_BYTES - 2 * DIGITS..]);
        Self { id_seed, id_start, ids_given: AtomicU64::new(0), blank: Notes::blank() }
    }

    /// Creates a complete response. `call` holds the headers of the upstream call for it, if there was one.
    pub(super) fn answer(&self, notes: Notes, call: Option<HeaderMap>, body: ReplyBody) -> Finished {
        let (mut response, outcome) = (Response::new(body), notes.outcome);
        let (headers, is_upstreams) = (response.headers_mut(), call.is_some());
        if let Some(call) = call {
            // The headers of the call come first, so those of vecho replace equal names.
            *headers = call;
            notes.write(headers);
            headers.entry(REQUEST_ID).or_insert_with(|| self.next_id());
        } else {
            *headers = self.blank.clone();
            notes.fill(headers, self.next_id());
        }
        Finished { is_upstreams, ..Finished::new(response, outcome) }
    }

    /// Creates a response from a cached reply.
    pub(super) fn stored(&self, answer: &CachedReply) -> Finished {
        let mut response = Response::new(ReplyBody::whole(answer.body.clone()));
        let headers = response.headers_mut();
        *headers = answer.headers.clone();
        if let Some((_, id)) = headers.iter_mut().find(|(name, _)| **name == REQUEST_ID) {
            *id = self.next_id();
        }
        let subject = RequestUsage { named: Arc::clone(answer.account.named()), inputs: answer.inputs };
        Finished::new(response, Outcome::Hit).about(subject)
    }

    /// Returns the upstream's error verbatim, or an error of our own if there is none.
    pub(super) fn refused(&self, failure: &Failure) -> Finished {
        let outcome = match failure.class {
            Class::Refused => Outcome::Refused,
            Class::Throttled | Class::NotInTime { .. } => Outcome::Throttled,
            Class::OverBudget(_) => Outcome::OverBudget,
            Class::Unavailable(_) | Class::InvalidAnswer(..) => Outcome::Unavailable,
        };
        let response = match (&failure.reply, failure.class) {
            (Some(reply), _) => self.as_it_came(UpstreamReply::clone(reply)),
            (None, Class::OverBudget(shortage)) => self.over_budget(shortage, &failure.detail),
            (None, Class::NotInTime { wait_s }) => self.not_in_time(wait_s, &failure.detail),
            (None, class) => self.unavailable(class, &failure.detail),
        };
        Finished::new(response, outcome)
    }

    /// Reports a budget that does not cover the request. SDKs retry on 429, and some of them sleep as long as
    /// `retry-after` says, so longer waits are declined by `x-should-retry`.
    fn over_budget(&self, shortage: BudgetShortage, detail: &str) -> Response<ReplyBody> {
        let message = format!("vecho has not called the upstream: {detail}.");
        let body = envelope(&message, "insufficient_quota", None, Some("budget_exhausted"));
        let mut response = self.error(StatusCode::TOO_MANY_REQUESTS, body);
        let headers = response.headers_mut();
        if !shortage.is_hopeless {
            headers.insert(RETRY_AFTER, HeaderValue::from(shortage.wait_s));
        }
        if shortage.is_hopeless || shortage.wait_s > LONGEST_SDK_WAIT_S {
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        response
    }

    /// Reports a call whose turn would come too late, as the upstream reports its rate limit.
    fn not_in_time(&self, wait_s: u64, detail: &str) -> Response<ReplyBody> {
        let message = format!("vecho has not called the upstream: {detail}.");
        let body = envelope(&message, "requests", None, Some("rate_limit_exceeded"));
        let mut response = self.error(StatusCode::TOO_MANY_REQUESTS, body);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait_s));
        response
    }

    fn unavailable(&self, class: Class, detail: &str) -> Response<ReplyBody> {
        let (status, code) = match class {
            Class::Unavailable(UnavailableReason::Timeout | UnavailableReason::Expired) => {
                (StatusCode::GATEWAY_TIMEOUT, "upstream_timeout")
            }
            Class::Unavailable(UnavailableReason::BreakerOpen | UnavailableReason::Stopping) => {
                (StatusCode::SERVICE_UNAVAILABLE, "upstream_unavailable")
            }
            _ => (StatusCode::BAD_GATEWAY, "upstream_unavailable"),
        };
        let message = format!("vecho has no answer of the upstream: {detail}.");
        let mut response = self.error(status, envelope(&message, "server_error", None, Some(code)));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }

    /// Passes on a response that failed validation.
    pub(super) fn unreadable(&self, reply: UpstreamReply) -> Finished {
        let mut response = self.as_it_came(reply);
        mark_bypass(response.headers_mut(), &Bypass::UnreadableAnswer.into());
        Finished::new(response, Outcome::Bypass)
    }

    /// Rejects a request with `only-if-cached` that is not fully cached: 504, as RFC 9111 (section 5.2.1.7) requires.
    pub(super) fn not_cached(&self) -> Finished {
        let message =
            "Not every input is cached, and the request asked for nothing else (cache-control: only-if-cached).";
        let body = envelope(message, "invalid_request_error", None, Some("not_cached"));
        let mut response = self.error(StatusCode::GATEWAY_TIMEOUT, body);
        // A retry would not help, and SDKs retry on 504.
        response.headers_mut().insert("x-should-retry", HeaderValue::from_static("false"));
        Finished::new(response, Outcome::NotCached)
    }

    /// Reports that one of our limits is reached at the moment.
    pub(super) fn overloaded(&self, rejection: Rejection) -> Finished {
        let message = match rejection {
            Rejection::InflightBytes => "Too many bytes of requests are under way (limits.max_inflight_bytes).",
            _ => "Too many requests are under way (limits.max_requests).",
        };
        let body = envelope(message, "server_error", None, Some("overloaded"));
        let mut response = self.error(StatusCode::SERVICE_UNAVAILABLE, body);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        Finished::new(response, Outcome::Rejected)
    }

    /// Reports a control header with an invalid value.
    pub(super) fn bad_control(&self, bad: BadControl) -> Finished {
        let body = envelope(&bad.to_string(), "invalid_request_error", Some(bad.header()), Some("invalid_header"));
        Finished::new(self.error(StatusCode::BAD_REQUEST, body), Outcome::Rejected)
    }

    /// Reports that the request's body could not be read.
    pub(super) fn bad_body(&self, error: &CollectError) -> Finished {
        let (status, limit, code) = match error {
            CollectError::TooLarge { .. } => {
                (StatusCode::PAYLOAD_TOO_LARGE, " (limits.max_body_bytes)", "body_too_large")
            }
            CollectError::NoRoom => return self.overloaded(Rejection::InflightBytes),
            CollectError::Incomplete(error) => match error {
                BodyError::Stalled(_) => (StatusCode::REQUEST_TIMEOUT, " (limits.body_timeout)", "body_timeout"),
                BodyError::Late => (StatusCode::REQUEST_TIMEOUT, " (limits.request_timeout)", "body_timeout"),
                BodyError::Cut(_) => (StatusCode::BAD_REQUEST, "", "body_cut"),
            },
        };
        let message = format!("The request could not be read: {error}{limit}.");
        let body = envelope(&message, "invalid_request_error", None, Some(code));
        Finished::new(closing(self.error(status, body)), Outcome::Rejected)
    }

    /// Reports that a request could not be forwarded.
    pub(super) fn not_forwarded(&self, error: &ForwardError) -> Finished {
        const INVALID: &str = "invalid_request_error";
        let (status, kind, code, outcome) = match error {
            ForwardError::Unreachable { .. } | ForwardError::Unanswered { .. } | ForwardError::UnaskedSwitch { .. } => {
                (StatusCode::BAD_GATEWAY, "server_error", "upstream_unavailable", Outcome::Unavailable)
            }
            ForwardError::Late => {
                (StatusCode::GATEWAY_TIMEOUT, "server_error", "upstream_timeout", Outcome::Unavailable)
            }
            ForwardError::RequestBody => (StatusCode::BAD_REQUEST, INVALID, "body_cut", Outcome::Rejected),
            ForwardError::RequestStalled => (StatusCode::REQUEST_TIMEOUT, INVALID, "body_timeout", Outcome::Rejected),
            ForwardError::TooLarge { .. } => {
                (StatusCode::PAYLOAD_TOO_LARGE, INVALID, "body_too_large", Outcome::Rejected)
            }
        };
        let message = format!("{error}.");
        let response = self.error(status, envelope(&message, kind, None, Some(code)));
        // The rest of the body is not read.
        let response = if outcome == Outcome::Rejected { closing(response) } else { response };
        Finished::new(response, outcome)
    }

    /// Reports that the upstream address would be too long.
    pub(super) fn too_long(&self, error: UriTooLong) -> Finished {
        let message = format!("The request cannot be passed to the upstream: {error}.");
        let body = envelope(&message, "invalid_request_error", None, Some("uri_too_long"));
        Finished::new(self.error(StatusCode::URI_TOO_LONG, body), Outcome::Rejected)
    }

    /// Reports a request that a reverse proxy cannot serve.
    pub(super) fn misdirected(&self, message: &str) -> Finished {
        let body = envelope(message, "invalid_request_error", None, Some("unsupported_request"));
        Finished::new(self.error(StatusCode::BAD_REQUEST, body), Outcome::Rejected)
    }

    /// Rejects a request with an input that is too long for its model, or with inputs that could not be measured.
    pub(super) fn unfit(&self, unfit: Unfit) -> Finished {
        match unfit {
            Unfit::TooLong(place) => {
                let message = format!("input[{place}] has more than {MAX_INPUT_TOKENS} tokens (limits.long_input).");
                let body = envelope(&message, "invalid_request_error", Some("input"), Some(TOO_LONG));
                Finished::new(self.error(StatusCode::BAD_REQUEST, body), Outcome::LongInput)
            }
            Unfit::Unmeasured => {
                let message = "The tokens of long inputs could not be counted within limits.request_timeout, because \
                               those of other requests come first (limits.long_input). Try again.";
                let body = envelope(message, "server_error", None, Some(UNMEASURED));
                let mut response = self.error(StatusCode::SERVICE_UNAVAILABLE, body);
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                // The request may be legal, so it counts as an error of vecho.
                Finished::new(response, Outcome::Rejected)
            }
        }
    }

    /// Rejects a similarity request that cannot be understood.
    pub(super) fn bad_similar(&self, fault: &SimilarFault) -> Finished {
        let (code, outcome) =
            if fault.is_too_long { (TOO_LONG, Outcome::LongInput) } else { ("invalid_value", Outcome::Rejected) };
        let body = envelope(&fault.to_string(), "invalid_request_error", fault.param, Some(code));
        Finished::new(self.error(StatusCode::BAD_REQUEST, body), outcome)
    }

    /// Rejects a similarity request with a body that is not JSON.
    pub(super) fn unsupported_body(&self, bypass: Bypass) -> Finished {
        let message = "The body must be JSON (content-type: application/json) in a known content-encoding.";
        let body = envelope(message, "invalid_request_error", None, Some(bypass.label()));
        Finished::new(self.error(StatusCode::UNSUPPORTED_MEDIA_TYPE, body), Outcome::Rejected)
    }

    /// Reports that the upstream's answer to the embeddings request of a similarity request has no usable vectors.
    pub(super) fn no_vectors(&self, message: &str) -> Finished {
        let body = envelope(message, "server_error", None, Some("no_vectors"));
        Finished::new(self.error(StatusCode::BAD_GATEWAY, body), Outcome::Unavailable)
    }

    /// Rejects a method other than POST.
    pub(super) fn only_post(&self) -> Finished {
        self.method_not_allowed("This route answers POST only.", "POST")
    }

    /// Rejects TRACE, because it would reveal vecho's key to the caller (RFC 9110, section 9.3.8).
    pub(super) fn trace_refused(&self) -> Finished {
        let message = "TRACE is not allowed: its answer would show the headers that vecho sends.";
        self.method_not_allowed(message, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
    }

    fn method_not_allowed(&self, message: &str, allowed: &'static str) -> Finished {
        let body = envelope(message, "invalid_request_error", None, Some("method_not_allowed"));
        let mut response = self.error(StatusCode::METHOD_NOT_ALLOWED, body);
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        Finished::new(response, Outcome::Rejected)
    }

    fn error(&self, status: StatusCode, body: Bytes) -> Response<ReplyBody> {
        let mut response = Response::new(ReplyBody::whole(body));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response.headers_mut().insert(REQUEST_ID, self.next_id());
        response
    }

    /// Returns the upstream's response, with an id of our own if it has none.
    fn as_it_came(&self, reply: UpstreamReply) -> Response<ReplyBody> {
        let mut response = Response::new(ReplyBody::whole(reply.body));
        *response.status_mut() = reply.status;
        let headers = response.headers_mut();
        *headers = shown_on_errors(&reply.headers);
        headers.entry(REQUEST_ID).or_insert_with(|| self.next_id());
        response
    }

    fn next_id(&self) -> HeaderValue {
        let number = self.ids_given.fetch_add(1, Ordering::Relaxed);
        // An odd multiplier permutes the numbers, which makes consecutive ids look different.
        let mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.id_seed;
        let mut id = self.id_start;
        write_hex(mixed, &mut id[ID_BYTES - DIGITS..]);
        HeaderValue::from_bytes(&id).expect("hexadecimal digits must be a header value")
    }
}

/// Announces that the connection closes after a response, because the rest of the request's body is not read. HTTP/2
/// leaves the header out.
fn closing(mut response: Response<ReplyBody>) -> Response<ReplyBody> {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Number of hexadecimal digits of a `u64`.
const DIGITS: usize = 16;
/// Length of `req_vecho_`, the seed and a number.
const ID_BYTES: usize = 10 + 2 * DIGITS;

/// Writes sixteen digits. Every hit runs this, and the formatting machinery would take ten times as long.
fn write_hex(number: u64, digits: &mut [u8]) {
    const HEXADECIMAL: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(number.to_be_bytes()) {
        pair[0] = HEXADECIMAL[usize::from(byte >> 4)];
        pair[1] = HEXADECIMAL[usize::from(byte & 15)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_the_upstreams_request_id_or_a_new_one() {
        let (replies, body) = (Replies::new(), Bytes::from_static(b"{}"));
        let id_of = |headers| {
            let failure =
                Failure::of_reply(UpstreamReply { status: StatusCode::NOT_FOUND, headers, body: body.clone() });
            replies.refused(&failure).response.headers()[REQUEST_ID].clone()
        };
        assert!(id_of(HeaderMap::new()).as_bytes().starts_with(b"req_vecho_"));
        let theirs = HeaderValue::from_static("theirs");
        assert_eq!(id_of(HeaderMap::from_iter([(REQUEST_ID, theirs.clone())])), theirs);
    }
}
