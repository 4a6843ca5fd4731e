//! Requests to the service: one attempt each, or repeated until an answer arrives.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Collected, Full, LengthLimitError, Limited};
use tokio::time::timeout;

use super::super::retry::{FIRST_WAIT, RetryLimits, RetrySchedule, requested_wait};
use crate::cli::moving::CommandError;
use crate::config::{Config, Live};
use crate::process::errors::{BoxError, cause_of};
use crate::upstream::{ClientBody, ForwardError, ForwardedBody, UpstreamClient};
use crate::wire::error_fields;

const RETRIES: RetryLimits =
    RetryLimits { attempts: 10, max_wait: Duration::from_mins(1), max_requested_wait: Duration::from_mins(10) };
/// Largest answer that is read into memory. A list of many files is the largest one.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// Longest text of a service's message that is shown or recorded.
const MAX_MESSAGE_CHARS: usize = 200;

/// Client of the upstream.
pub(super) struct Remote {
    client: UpstreamClient,
    headers: HeaderMap,
    timeout: Duration,
    pub(super) first_wait: Duration,
}

/// Failure of one attempt.
#[derive(Debug, thiserror::Error)]
pub(super) enum RemoteError {
    /// The service has not processed the request. It may be repeated.
    #[error("{cause}")]
    Busy { cause: String, wait: Option<Duration> },
    /// The service may have processed the request.
    #[error("{0}")]
    Lost(String),
    /// The service has refused the request.
    #[error("{refusal}")]
    Refused { status: u16, refusal: Refused },
}

/// Reason of a refusal.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub(super) struct Refused {
    pub(super) code: String,
    pub(super) message: String,
}

impl Remote {
    pub(super) fn new(config: &Config, headers: HeaderMap, poll: Duration) -> Result<Self, CommandError> {
        let client = UpstreamClient::http(Live::new(config.clone())).map_err(|error| error.to_string())?;
        // The interval of polls may be shorter.
        Ok(Self { client, headers, timeout: config.upstream.call_timeout, first_wait: poll.min(FIRST_WAIT) })
    }

    pub(super) const fn schedule(&self) -> RetrySchedule {
        RETRIES.schedule(self.first_wait)
    }

    /// Sends a request that changes nothing, or that may be repeated, until it is answered.
    pub(super) async fn request(&self, method: &Method, uri: &Uri) -> Result<Bytes, RemoteError> {
        let mut schedule = self.schedule();
        loop {
            let error = match self.attempt(method.clone(), uri, ("", ClientBody::empty())).await {
                Err(error) if !matches!(error, RemoteError::Refused { .. }) => error,
                ended => return ended,
            };
            wait_after(error, &mut schedule).await?;
        }
    }

    /// Sends a request once, and reads its answer. `content` is a content type and a body.
    pub(super) async fn attempt(
        &self,
        method: Method,
        uri: &Uri,
        content: (&str, ClientBody),
    ) -> Result<Bytes, RemoteError> {
        let late = |_| RemoteError::Lost(format!("no answer within upstream.call_timeout ({:?})", self.timeout));
        timeout(self.timeout, self.exchange(method, uri, content)).await.map_err(late)?
    }

    /// Uploads a body once, and reads the answer. An upload may take longer than other requests.
    pub(super) async fn transfer(
        &self,
        limit: Duration,
        uri: &Uri,
        content: (&str, ClientBody),
    ) -> Result<Bytes, RemoteError> {
        let late = |_| RemoteError::Lost(format!("the upload took longer than {limit:?}"));
        timeout(limit, self.exchange(Method::POST, uri, content)).await.map_err(late)?
    }

    async fn exchange(&self, method: Method, uri: &Uri, content: (&str, ClientBody)) -> Result<Bytes, RemoteError> {
        let response = self.open(method, uri, content).await?;
        match Limited::new(body_of(response), MAX_ANSWER_BYTES).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(RemoteError::Lost("the answer is too large".into())),
            Err(error) => Err(RemoteError::Lost(format!("the answer broke off: {}", cause_of(&*error)))),
        }
    }

    /// Sends a request once, and returns a successful answer before its body.
    pub(super) async fn open(
        &self,
        method: Method,
        uri: &Uri,
        (content_type, body): (&str, ClientBody),
    ) -> Result<Response<ForwardedBody>, RemoteError> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("*/*"));
        if !content_type.is_empty() {
            let value = HeaderValue::from_str(content_type).map_err(|error| RemoteError::Lost(error.to_string()))?;
            request.headers_mut().insert(CONTENT_TYPE, value);
        }
        let response = self.client.forward(request).await.map_err(|error| match error {
            ForwardError::Unreachable { .. } => RemoteError::Busy { cause: error.to_string(), wait: None },
            _ => RemoteError::Lost(error.to_string()),
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = Limited::new(body_of(response), MAX_ANSWER_BYTES).collect().await;
        Err(judged(status, &headers, &body.map(Collected::to_bytes).unwrap_or_default()))
    }
}

/// Waits before the next attempt. Returns the error if it is final, or if there were too many attempts.
pub(super) async fn wait_after(error: RemoteError, schedule: &mut RetrySchedule) -> Result<(), RemoteError> {
    let requested = match &error {
        RemoteError::Busy { wait, .. } => *wait,
        RemoteError::Lost(_) => None,
        RemoteError::Refused { .. } => return Err(error),
    };
    if schedule.pause(&error, requested).await { Ok(()) } else { Err(error) }
}

impl Refused {
    /// Bounds the message, since a service may repeat parts of a text.
    pub(super) fn new(code: &str, message: &str) -> Self {
        let message =
            message.chars().take(MAX_MESSAGE_CHARS).map(|letter| if letter.is_control() { ' ' } else { letter });
        Self { code: code.to_owned(), message: message.collect() }
    }
}

/// Returns the body of a response as one type.
pub(super) fn body_of(response: Response<ForwardedBody>) -> UnsyncBoxBody<Bytes, BoxError> {
    match response.into_body() {
        ForwardedBody::Streamed(body) => body.map_err(Into::into).boxed_unsync(),
        ForwardedBody::Whole(bytes) => Full::new(bytes).map_err(|never| match never {}).boxed_unsync(),
    }
}

fn judged(status: u16, headers: &HeaderMap, body: &[u8]) -> RemoteError {
    let fields = error_fields(body);
    let code = if fields.code.is_empty() { format!("status {status}") } else { fields.code };
    let refusal = Refused::new(&code, &fields.message);
    match status {
        // An exhausted quota does not come back soon.
        429 if refusal.code != "insufficient_quota" && !is_token_limit(&refusal.code) => {
            RemoteError::Busy { cause: refusal.to_string(), wait: requested_wait(headers) }
        }
        408 | 409 | 500.. => RemoteError::Lost(refusal.to_string()),
        _ => RemoteError::Refused { status, refusal },
    }
}

/// Returns true for the code of a batch that exceeds the limit of enqueued tokens.
pub(super) fn is_token_limit(code: &str) -> bool {
    code == "token_limit_exceeded"
}
