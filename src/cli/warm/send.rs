//! Sends one batch, with retries, until it succeeds, is rejected or is given up.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::json;

use super::options::WarmOptions;
use super::read::{LineInput, WarmBatch};
use super::retry::{FIRST_WAIT, RetryLimits, requested_wait};
use super::source::Place;
use crate::cli::client::{Cause, Client, read_whole, whole};
use crate::cli::moving::CommandError;
use crate::config::Config;
use crate::observe::metrics::InputSource;
use crate::wire::error_fields;

const PATH: &str = "/v1/embeddings";
const CACHE: &str = "x-vecho-cache";
const SOURCES: &str = "x-vecho-sources";
const TOKENS: &str = "x-vecho-tokens";
const SHOULD_RETRY: &str = "x-should-retry";
const FALLBACK: HeaderName = HeaderName::from_static("x-vecho-fallback");
const PRIORITY: HeaderName = HeaderName::from_static("x-vecho-priority");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vecho-namespace");

const RETRIES: RetryLimits =
    RetryLimits { attempts: 8, max_wait: Duration::from_secs(30), max_requested_wait: Duration::from_mins(5) };
/// Largest request, even if the configuration allows larger ones.
const MAX_BATCH_BYTES: usize = 8 << 20;
/// Bytes of a request in addition to its inputs.
const ENVELOPE_BYTES: usize = 4_096;

/// Sends requests to the public port.
pub(super) struct WarmClient {
    client: Client,
    headers: HeaderMap,
    /// The request body up to its inputs.
    opening: String,
}

/// Number of inputs by source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct WarmCounts {
    pub(super) cached: u64,
    pub(super) fetched: u64,
    pub(super) billed: u64,
}

/// Reason to send no further requests: all of them would fail.
#[derive(Debug)]
pub(super) struct Stop(pub(super) CommandError);

/// Result of a batch.
#[derive(Default)]
pub(super) struct BatchResult {
    pub(super) counts: WarmCounts,
    /// Failed inputs with the reason.
    pub(super) failed: Vec<(Place, String)>,
    pub(super) stopped: Option<Stop>,
}

/// Result of one request.
enum RequestOutcome {
    Cached(WarmCounts),
    /// An input may be the cause.
    Refused(String),
    /// The inputs are not the cause.
    Failed(String),
    /// The inputs are not the cause, and further requests would fail too.
    Stopped(String),
}

/// Decision about an error response.
enum Attempt {
    Final(RequestOutcome),
    Again { cause: String, wait: Option<Duration> },
}

impl WarmCounts {
    pub(super) fn add(&mut self, other: &Self) {
        self.cached += other.cached;
        self.fetched += other.fetched;
        self.billed += other.billed;
    }
}

impl WarmClient {
    pub(super) fn new(client: Client, mut headers: HeaderMap, options: &WarmOptions) -> Result<Self, CommandError> {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // The request asks for an error instead of a mock or a stale entry, which must not count as a success.
        headers.insert(FALLBACK, HeaderValue::from_static("error"));
        // Requests of users go first.
        headers.insert(PRIORITY, HeaderValue::from_static("bulk"));
        if let Some(namespace) = &options.namespace {
            let value = HeaderValue::from_str(namespace).map_err(|_| "--namespace takes visible ASCII characters")?;
            headers.insert(NAMESPACE, value);
        }
        let dimensions = options.dimensions.map_or_else(String::new, |number| format!("\"dimensions\":{number},"));
        let opening = format!(r#"{{"model":{},"encoding_format":"base64",{dimensions}"input":["#, json!(options.model));
        Ok(Self { client, headers, opening })
    }

    /// Returns the number of bytes of inputs that fit into one request.
    pub(super) fn max_batch_bytes(&self, config: &Config) -> usize {
        // At least one byte, so each batch takes one input if the limits are very small.
        let around = self.opening.len() + ENVELOPE_BYTES;
        config.limits.max_body_bytes.min(MAX_BATCH_BYTES).saturating_sub(around).max(1)
    }

    /// Sends a batch. If it is rejected, each half is sent separately, down to the faulty lines.
    pub(super) async fn send(&self, batch: &WarmBatch) -> BatchResult {
        let (mut result, mut open) = (BatchResult::default(), vec![&batch.inputs[..]]);
        while let Some(inputs) = open.pop() {
            match self.send_inputs(inputs).await {
                RequestOutcome::Cached(counts) => result.counts.add(&counts),
                RequestOutcome::Refused(_) if inputs.len() > 1 => {
                    // One invalid input fails the whole request, so the halves separate it from the valid ones.
                    let (first, second) = inputs.split_at(inputs.len() / 2);
                    // The list is a stack, so the first half is sent first.
                    open.extend([second, first]);
                }
                RequestOutcome::Refused(cause) | RequestOutcome::Failed(cause) => result.fail(inputs, &cause),
                RequestOutcome::Stopped(cause) => {
                    open.into_iter().chain([inputs]).for_each(|inputs| result.fail(inputs, &cause));
                    result.stopped = Some(Stop(cause));
                    break;
                }
            }
        }
        result
    }

    async fn send_inputs(&self, inputs: &[LineInput]) -> RequestOutcome {
        let body = self.body(inputs);
        let mut schedule = RETRIES.schedule(FIRST_WAIT);
        loop {
            let (cause, requested) = match self.attempt(&body, inputs.len()).await {
                Attempt::Final(outcome) => return outcome,
                Attempt::Again { cause, wait } => (cause, wait),
            };
            // The last error is reported, not the number of attempts.
            if !schedule.pause(&cause, requested).await {
                return RequestOutcome::Failed(cause);
            }
        }
    }

    fn body(&self, inputs: &[LineInput]) -> Bytes {
        let inputs: Vec<&str> = inputs.iter().map(|input| &*input.json).collect();
        format!("{}{}]}}", self.opening, inputs.join(",")).into()
    }

    async fn attempt(&self, body: &Bytes, inputs: usize) -> Attempt {
        let mut request = self.client.request(Method::POST, PATH, whole(body.clone()));
        request.headers_mut().extend(self.headers.clone());
        let answer = match self.client.send(request).await {
            Ok(answer) => answer,
            // Nothing listens any more, so all further requests would fail as well.
            Err(error) if matches!(error.cause, Cause::Refused) => {
                return Attempt::Final(RequestOutcome::Stopped(error.to_string()));
            }
            // Other failures of the connection may pass.
            Err(error) => return Attempt::Again { cause: error.to_string(), wait: None },
        };
        let (head, body) = answer.into_parts();
        if head.status != StatusCode::OK {
            let body = read_whole(body).await.unwrap_or_default();
            return judge_error(head.status, &head.headers, &body);
        }
        // vecho answers from its cache if the request is repeated, so a broken body costs no tokens again.
        match drain(body).await {
            Ok(()) => Attempt::Final(judge(&head.headers, inputs)),
            Err(error) => Attempt::Again { cause: format!("the answer broke off: {error}"), wait: None },
        }
    }
}

impl BatchResult {
    fn fail(&mut self, inputs: &[LineInput], cause: &str) {
        self.failed.extend(inputs.iter().map(|input| (input.place, cause.to_owned())));
    }
}

/// Reads a body and discards it: this command does not use the vectors.
async fn drain(mut body: Incoming) -> hyper::Result<()> {
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(())
}

/// Evaluates a successful response: only vectors from a tier or from the upstream are cached.
fn judge(headers: &HeaderMap, inputs: usize) -> RequestOutcome {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    // Each response of vecho to an embeddings request has this header.
    match text(CACHE) {
        None => return RequestOutcome::Stopped("the server at `listen` is not vecho".to_owned()),
        Some("hit" | "partial" | "miss") => {}
        Some("bypass") => return RequestOutcome::Refused("the answer could not be cached".to_owned()),
        Some(other) => return RequestOutcome::Failed(format!("the answer holds a mock or a stale entry ({other})")),
    }
    let (mut counts, mut seen) = (WarmCounts::default(), 0);
    for (source, count) in pairs(text(SOURCES).unwrap_or_default()) {
        seen += count;
        match InputSource::ALL.iter().find(|known| known.label() == source) {
            Some(InputSource::Upstream | InputSource::Joined) => counts.fetched += count,
            // A live request gets the same derived vector.
            Some(InputSource::Memory | InputSource::Disk | InputSource::Redis | InputSource::Derived) => {
                counts.cached += count;
            }
            Some(InputSource::Stale | InputSource::Mock) => {
                return RequestOutcome::Failed(format!("the answer holds a mock or a stale entry ({source})"));
            }
            None => return RequestOutcome::Failed(format!("the answer has an unknown source ({source})")),
        }
    }
    counts.billed =
        pairs(text(TOKENS).unwrap_or_default()).find(|(name, _)| *name == "billed").map_or(0, |pair| pair.1);
    // The sources must account for all inputs.
    if seen == inputs as u64 {
        RequestOutcome::Cached(counts)
    } else {
        RequestOutcome::Failed("the answer is not whole".to_owned())
    }
}

/// Parses `a=1, b=2`.
fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.split(',').filter_map(|pair| {
        let (name, count) = pair.trim().split_once('=')?;
        Some((name, count.parse().ok()?))
    })
}

fn judge_error(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Attempt {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let message = error_fields(body).message;
    let cause = if message.is_empty() { status.to_string() } else { message };
    // OpenAI's service and its clients use this header to override the rule of the status.
    let is_vetoed = text(SHOULD_RETRY) == Some("false");
    match status.as_u16() {
        // The credential or the path is wrong, which is the same for all requests.
        401 | 403 | 404 => Attempt::Final(RequestOutcome::Stopped(cause)),
        // An exhausted quota comes back neither within the retries nor for other requests.
        429 if is_vetoed || error_fields(body).code == "insufficient_quota" => {
            Attempt::Final(RequestOutcome::Stopped(cause))
        }
        // These failures may pass, unless the server forbids a retry.
        408 | 429 | 500.. if !is_vetoed => Attempt::Again { cause, wait: requested_wait(headers) },
        408 | 429 | 500.. => Attempt::Final(RequestOutcome::Failed(cause)),
        _ => Attempt::Final(RequestOutcome::Refused(cause)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn only_answers_from_a_tier_or_the_upstream_count_as_warmed() {
        let judged =
            |cache, sources| judge(&headers(&[(CACHE, cache), (SOURCES, sources), (TOKENS, "billed=7, saved=1")]), 3);
        let sum = WarmCounts { cached: 2, fetched: 1, billed: 7 };
        assert!(
            matches!(judged("partial", "memory=1, disk=1, upstream=1"), RequestOutcome::Cached(counts) if counts == sum)
        );
        let derived = WarmCounts { cached: 3, fetched: 0, billed: 7 };
        assert!(matches!(judged("hit", "memory=1, derived=2"), RequestOutcome::Cached(counts) if counts == derived));
        assert!(matches!(judged("hit", "memory=1, elsewhere=2"), RequestOutcome::Failed(_)));
        assert!(matches!(judged("mock", "mock=3"), RequestOutcome::Failed(_)));
        assert!(matches!(judged("stale", "stale=3"), RequestOutcome::Failed(_)));
        assert!(matches!(judged("partial", "memory=2, mock=1"), RequestOutcome::Failed(_)));
        assert!(matches!(judged("miss", "upstream=2"), RequestOutcome::Failed(_)), "one input is missing");
        assert!(matches!(judged("bypass", ""), RequestOutcome::Refused(_)));
        assert!(matches!(judge(&headers(&[]), 3), RequestOutcome::Stopped(_)));
    }

    #[test]
    fn transient_errors_are_retried_and_permanent_ones_are_not() {
        let judged = |status: u16, pairs: &[(&'static str, &'static str)]| {
            judge_error(StatusCode::from_u16(status).expect("a status"), &headers(pairs), b"{}")
        };
        let again = judged(429, &[("retry-after", "2"), ("retry-after-ms", "1500")]);
        assert!(matches!(again, Attempt::Again { wait: Some(wait), .. } if wait == Duration::from_millis(1_500)));
        assert!(matches!(judged(503, &[("retry-after", "-1")]), Attempt::Again { wait: None, .. }));
        assert!(matches!(judged(503, &[(SHOULD_RETRY, "false")]), Attempt::Final(RequestOutcome::Failed(_))));
        assert!(matches!(judged(400, &[]), Attempt::Final(RequestOutcome::Refused(_))));
        assert!(matches!(judged(401, &[]), Attempt::Final(RequestOutcome::Stopped(_))));
        let quota = br#"{"error":{"message":"no","type":"insufficient_quota","code":"insufficient_quota"}}"#;
        let quota = judge_error(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new(), quota);
        assert!(matches!(quota, Attempt::Final(RequestOutcome::Stopped(_))));
    }
}
