//! Responses of the ops port, and its errors in the same envelope as the public port's.

use bytes::Bytes;
use futures_util::TryStreamExt;
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use serde::Serialize;
use serde_json::json;

use crate::cache::purges::{MAX_FORGOTTEN, TOO_MANY_FORGOTTEN};
use crate::cache::transfer::Pieces;
use crate::flow::UNMEASURED;
use crate::process::errors::BoxError;
use crate::spend::OverBudget;

/// Body of a response: complete or streamed.
pub type AdminBody = UnsyncBoxBody<Bytes, BoxError>;

/// Response of the ops port.
pub(super) type AdminResponse = Response<AdminBody>;

/// Creates a response with a streamed body.
pub(super) fn streamed(content_type: &'static str, pieces: Pieces<'static>) -> AdminResponse {
    let body = StreamBody::new(pieces.map_ok(Frame::data));
    dressed(StatusCode::OK, content_type, body.boxed_unsync())
}

/// Creates a response with a complete body of any content type.
pub(super) fn bytes(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> AdminResponse {
    dressed(status, content_type, Full::new(body.into()).map_err(|never| match never {}).boxed_unsync())
}

/// Creates a response with common headers. Figures change at any moment, so `no-store` forbids caching.
fn dressed(status: StatusCode, content_type: &'static str, body: AdminBody) -> AdminResponse {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    let headers: [(HeaderName, &'static str); 3] =
        [(CONTENT_TYPE, content_type), (CACHE_CONTROL, "no-store"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    for (name, value) in headers {
        reply.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    reply
}

pub(super) fn json(status: StatusCode, body: &impl Serialize) -> AdminResponse {
    let text = serde_json::to_vec(body).expect("answers of the ops port must serialize");
    bytes(status, "application/json", text)
}

pub(super) fn ok(body: &impl Serialize) -> AdminResponse {
    json(StatusCode::OK, body)
}

/// Reason why the ops port rejected a request.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error(
        "Unknown request URL: {method} {path}. `GET /` lists what there is. This is the ops port; embeddings are served at `listen`."
    )]
    UnknownRoute { method: String, path: String },
    #[error("Not allowed to {method} on {path}.")]
    WrongMethod { method: String, path: String, allow: &'static str },
    #[error("{why}{}", if *is_wrong_token { " The token that came with it is not `admin.token`." } else { "" })]
    Forbidden { why: &'static str, is_wrong_token: bool },
    #[error("The request body is larger than {max_bytes} bytes.")]
    BodyTooLarge { max_bytes: usize },
    #[error("The request body did not arrive within {seconds} seconds.")]
    BodyTimeout { seconds: u64 },
    #[error("The request body broke off.")]
    BodyCut,
    #[error("Too many event streams are open.")]
    TooManyStreams,
    #[error("This request would not be cached, so it has no entries: {message} ({reason}{}).", subject_text(subject.as_deref()))]
    NotCacheable { reason: String, message: String, subject: Option<String> },
    #[error(
        "`Authorization` holds `admin.token`, but names the credential whose entries are forgotten. Send the token as \
         `x-vecho-admin-token`."
    )]
    TokenAsCredential,
    #[error(
        "Too many inputs: at most {MAX_FORGOTTEN} are forgotten, in all scopes, until their entries would have expired. \
         Purge the model instead: `DELETE /api/performance/cache?model=NAME`."
    )]
    TooManyForgotten,
    #[error(
        "Nothing was forgotten: the tokens of long inputs cannot be counted, so the texts to which they may have been cut \
         are unknown. Try again, raise memory.limit_mb, or purge the model: `DELETE /api/performance/cache?model=NAME`."
    )]
    InputsUnmeasured,
    #[error("{0}.")]
    OverBudget(Box<OverBudget>),
    #[error("{0}")]
    BadBody(String),
    #[error("{message}")]
    BadParameter { param: String, message: String },
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::UnknownRoute { .. } => StatusCode::NOT_FOUND,
            Self::WrongMethod { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::Forbidden { .. } => StatusCode::FORBIDDEN,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::BodyCut
            | Self::BadBody(_)
            | Self::BadParameter { .. }
            | Self::NotCacheable { .. }
            | Self::TokenAsCredential => StatusCode::BAD_REQUEST,
            Self::TooManyForgotten => StatusCode::CONFLICT,
            Self::OverBudget(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::TooManyStreams | Self::InputsUnmeasured => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::UnknownRoute { .. } => "unknown_url",
            Self::WrongMethod { .. } => "method_not_supported",
            Self::Forbidden { .. } => "forbidden",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::BodyTimeout { .. } => "body_timeout",
            Self::BodyCut | Self::BadBody(_) => "invalid_body",
            Self::BadParameter { .. } => "invalid_parameter",
            Self::TooManyStreams => "overloaded",
            Self::NotCacheable { .. } => "not_cacheable",
            Self::TokenAsCredential => "token_as_credential",
            Self::TooManyForgotten => TOO_MANY_FORGOTTEN,
            Self::InputsUnmeasured => UNMEASURED,
            Self::OverBudget(_) => "budget_exhausted",
        }
    }

    fn param(&self) -> Option<&str> {
        match self {
            Self::BadParameter { param, .. } => Some(param),
            Self::NotCacheable { subject, .. } => subject.as_deref(),
            _ => None,
        }
    }

    pub(super) fn into_reply(self) -> AdminResponse {
        let error = json!({
            "message": self.to_string(),
            "type": if self.status().is_server_error() { "server_error" } else { "invalid_request_error" },
            "param": self.param(),
            "code": self.code(),
        });
        let mut reply = json(self.status(), &json!({ "error": error }));
        if let Self::WrongMethod { allow, .. } = self {
            reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
        }
        if matches!(self, Self::BodyTooLarge { .. } | Self::BodyTimeout { .. } | Self::BodyCut) {
            // The rest of the body is not read, so the connection closes. HTTP/2 leaves the header out.
            reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if matches!(self, Self::TooManyStreams | Self::InputsUnmeasured) {
            reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
        }
        reply
    }
}

fn subject_text(subject: Option<&str>) -> String {
    subject.map(|subject| format!(": `{subject}`")).unwrap_or_default()
}

/// Rounds `value` to `digits` decimals for display.
pub(super) fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

/// Converts bytes to units of 2^20, rounded to two decimals.
pub(super) fn megabytes(bytes: u64) -> f64 {
    in_units(bytes, 1 << 20)
}

/// Converts bytes to units of 2^30, rounded to two decimals.
pub(super) fn gigabytes(bytes: u64) -> f64 {
    in_units(bytes, 1 << 30)
}

#[expect(clippy::cast_precision_loss, reason = "figures for people; exact up to 2^53")]
fn in_units(bytes: u64, unit: u32) -> f64 {
    rounded(bytes as f64 / f64::from(unit), 2)
}

/// Returns `part` divided by `whole`, or 0 if `whole` is 0.
#[expect(clippy::cast_precision_loss, reason = "figures for people; exact up to 2^53")]
pub(super) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_rounded_in_their_units() {
        assert_eq!((megabytes(4 << 20), megabytes(3 << 19), megabytes(12_345)), (4.0, 1.5, 0.01));
        assert_eq!((gigabytes(15 << 29), gigabytes(1 << 20)), (7.5, 0.0));
        assert_eq!((rounded(41.26, 1), rounded(0.123_456, 3)), (41.3, 0.123));
        assert_eq!((share(1, 4), share(1, 0)), (0.25, 0.0));
    }
}
