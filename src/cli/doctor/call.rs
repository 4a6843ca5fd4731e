//! One real embeddings call with the key that vecho would use.

use std::time::{Duration, Instant};

use http::header::{CONTENT_TYPE, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, StatusCode, Uri};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::check::CheckResult;
use super::upstream::{FailedStep, send};
use crate::app::is_azure_root;
use crate::cli::client::{read_whole, whole};
use crate::cli::credential::Credential;
use crate::cli::surrounding::Surrounding;
use crate::config::{Config, UpstreamTarget};
use crate::upstream::upstream_uri;
use crate::vector::{COMPONENT_BYTES, Vector};

const CHECK: &str = "call";
/// Timeout of the call. A server may have to load the model first.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The call as it was made, and its answer.
struct AnsweredCall<'a> {
    model: &'a str,
    has_key: bool,
    status: StatusCode,
    /// The body; null unless it is JSON.
    body: Value,
    latency_ms: u128,
}

/// Result of the call, and the vector that it brought.
pub(super) struct CalledModel {
    pub(super) result: CheckResult,
    pub(super) vector: Option<Vector>,
}

/// Makes the call, for a model with this name there.
pub(super) async fn check(config: &Config, surrounding: &Surrounding, model: &str) -> CalledModel {
    let UpstreamTarget::Http(base) = &config.upstream.target else {
        let result = CheckResult::ok(CHECK, "nothing to call: the built-in mock makes the vectors");
        return CalledModel { result, vector: None };
    };
    let within = CALL_TIMEOUT.min(config.upstream.call_timeout);
    let called = timeout(within, call(config, base, surrounding, model)).await.unwrap_or_else(|_| {
        let message = format!("no answer within {} s", within.as_secs_f64());
        Err(FailedStep { message, remedy: "call the service directly to see whether it is slow".to_owned() })
    });
    let vector = called.as_ref().ok().and_then(AnsweredCall::vector);
    let judged = called.and_then(|answered| answered.judge().map(|result| answered.priced(config, result)));
    let result = judged.unwrap_or_else(|FailedStep { message, remedy }| CheckResult::fault(CHECK, message, remedy));
    CalledModel { result, vector }
}

async fn call<'a>(
    config: &Config,
    base: &Uri,
    surrounding: &Surrounding,
    model: &'a str,
) -> Result<AnsweredCall<'a>, FailedStep> {
    // Azure has no `/v1` at its root.
    let path = if is_azure_root(base) { "/openai/v1/embeddings" } else { "/v1/embeddings" };
    let failed = |message: String| FailedStep { message, remedy: "correct upstream.url".to_owned() };
    let uri = upstream_uri(base, &PathAndQuery::from_static(path)).map_err(|error| failed(error.to_string()))?;
    let body = json!({"model": model, "input": "vecho doctor", "encoding_format": "base64"});
    let mut request = Request::new(whole(body.to_string()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri.clone();
    // A key that vecho holds replaces that of applications.
    let holds_key = config.upstream.api_key.is_some();
    let credential = if holds_key { Credential::default() } else { surrounding.credential.clone() };
    *request.headers_mut() = credential.headers(config);
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let broken = |cause: String| FailedStep {
        message: format!("{uri}: {cause}"),
        remedy: "look at the line of the upstream".to_owned(),
    };
    let begun = Instant::now();
    let answer = send(config, request).await?.map_err(broken)?;
    let status = answer.status();
    let body = read_whole(answer.into_body()).await.map_err(broken)?;
    let (has_key, latency_ms) = (holds_key || credential.has_key(), begun.elapsed().as_millis());
    Ok(AnsweredCall { model, has_key, status, body: serde_json::from_slice(&body).unwrap_or_default(), latency_ms })
}

impl AnsweredCall<'_> {
    /// Returns the vector, if there is a valid one.
    fn vector(&self) -> Option<Vector> {
        let bytes = match &self.body["data"][0]["embedding"] {
            Value::String(text) => base64_simd::STANDARD.decode_to_vec(text).ok()?,
            Value::Array(numbers) => numbers.iter().filter_map(Value::as_f64).flat_map(f32_bytes).collect(),
            _ => return None,
        };
        Vector::from_le_bytes(&bytes).ok()
    }

    fn judge(&self) -> Result<CheckResult, FailedStep> {
        if !self.status.is_success() {
            return Err(self.refusal());
        }
        let (components, encoding) = match &self.body["data"][0]["embedding"] {
            Value::String(text) => (text.trim_end_matches('=').len() * 3 / 4 / COMPONENT_BYTES, "base64 honoured"),
            Value::Array(numbers) => (numbers.len(), "base64 not honoured: it answers numbers, which vecho reads too"),
            _ => (0, ""),
        };
        let Self { model, status, latency_ms, .. } = self;
        let status = status.as_u16();
        if components == 0 {
            let message = format!("{model}: status {status} after {latency_ms} ms, but the answer has no vector");
            let remedy = "set upstream.url to the base of an OpenAI-compatible embeddings API".to_owned();
            return Err(FailedStep { message, remedy });
        }
        let key = if self.has_key { "key accepted" } else { "no key needed" };
        let message =
            format!("{model}: {key}, status {status} after {latency_ms} ms, {components} dimensions, {encoding}");
        Ok(CheckResult::ok(CHECK, message))
    }

    /// Turns a good result into a warning if money is limited and the model has no price.
    fn priced(&self, config: &Config, result: CheckResult) -> CheckResult {
        let names = [Some(self.model), self.body["model"].as_str()];
        let has_price = names.into_iter().flatten().any(|name| config.savings.price(name).is_some());
        if has_price || !config.budget.limits_money() {
            return result;
        }
        let message = format!(
            "{}; {} has no price, so it counts towards the budgets of money at the highest price",
            result.message, self.model
        );
        CheckResult::warning(CHECK, message, "add the model to savings.prices")
    }

    /// Describes an error. The message of the server is left out, because it may repeat a part of the key.
    fn refusal(&self) -> FailedStep {
        let error = &self.body["error"];
        let code = error["code"].as_str().or(error["type"].as_str()).filter(|code| is_plain(code));
        let code = code.map_or_else(String::new, |code| format!(" ({code})"));
        let status = self.status.as_u16();
        let (meaning, remedy) = match status {
            401 | 403 if !self.has_key => ("no key was sent", "set OPENAI_API_KEY or upstream.api_key"),
            401 | 403 => ("the key is refused", "set upstream.api_key or OPENAI_API_KEY to a valid key with access"),
            404 => ("the path or the model is unknown", "correct upstream.url, or name a model of it with --model"),
            429 => ("a limit or the quota of the key is reached", "look at the limits and the billing of the account"),
            300..400 => ("it redirects", "set upstream.url to the address to which it redirects"),
            400..500 => ("the request is refused", "name an embeddings model of the service with --model"),
            _ => ("the service fails", "look at the state of the service"),
        };
        FailedStep { message: format!("{}: {meaning}: status {status}{code}", self.model), remedy: remedy.to_owned() }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "services compute vectors in f32")]
fn f32_bytes(number: f64) -> [u8; COMPONENT_BYTES] {
    (number as f32).to_le_bytes()
}

/// Returns true if a code is one short word in snake case, so it cannot be a secret in a foreign form.
fn is_plain(code: &str) -> bool {
    code.len() <= 40 && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}
