//! One real embeddings call with the key that vecho would use.

use std::time::{Duration, Instant};

use http::header::{CONTENT_TYPE, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, StatusCode, Uri};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::check::CheckResult;
use super::options::DoctorOptions;
use super::upstream::{FailedStep, pool};
use crate::app::is_azure_root;
use crate::cli::arguments::Surrounding;
use crate::cli::client::{read_whole, whole};
use crate::cli::credential::Credential;
use crate::config::{Config, UpstreamTarget};
use crate::process::errors::cause_of;
use crate::upstream::upstream_uri;
use crate::vector::COMPONENT_BYTES;

const CHECK: &str = "call";
/// Timeout of the call. A server may have to load the model first.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Makes the call. There is nothing to call in front of the built-in mock.
pub(super) async fn check(config: &Config, surrounding: &Surrounding, options: &DoctorOptions) -> Option<CheckResult> {
    let UpstreamTarget::Http(base) = &config.upstream.target else { return None };
    let within = CALL_TIMEOUT.min(config.upstream.call_timeout);
    let called = timeout(within, call(config, base, surrounding, &options.model)).await.unwrap_or_else(|_| {
        let message = format!("no answer within {} s", within.as_secs_f64());
        Err(FailedStep { message, remedy: "call the service directly to see whether it is slow".to_owned() })
    });
    Some(called.unwrap_or_else(|FailedStep { message, remedy }| CheckResult::fault(CHECK, message, remedy)))
}

async fn call(config: &Config, base: &Uri, surrounding: &Surrounding, model: &str) -> Result<CheckResult, FailedStep> {
    // Azure has no `/v1` at its root.
    let path = if is_azure_root(base) { "/openai/v1/embeddings" } else { "/v1/embeddings" };
    let failed = |message: String| FailedStep { message, remedy: "correct upstream.url".to_owned() };
    let uri = upstream_uri(base, &PathAndQuery::from_static(path)).map_err(|error| failed(error.to_string()))?;
    let body = json!({"model": model, "input": "vecho doctor", "encoding_format": "base64"});
    let mut request = Request::new(whole(body.to_string()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri.clone();
    *request.headers_mut() = credential(config, surrounding).headers(config);
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let begun = Instant::now();
    let broken = |cause: String| FailedStep {
        message: format!("{uri}: {cause}"),
        remedy: "look at the line of the upstream".to_owned(),
    };
    let answer = pool(config)?.request(request).await.map_err(|error| broken(cause_of(&error)))?;
    let status = answer.status();
    let answer = read_whole(answer.into_body()).await.map_err(broken)?;
    let latency_ms = begun.elapsed().as_millis();
    let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
    if status.is_success() { Ok(judge(&answer, model, latency_ms)) } else { Err(refusal(status, &answer, model)) }
}

/// Returns the credential of the call: the key that vecho holds, or else that of applications in this environment.
fn credential(config: &Config, surrounding: &Surrounding) -> Credential {
    if config.upstream.api_key.is_some() { Credential::default() } else { surrounding.credential.clone() }
}

fn judge(answer: &Value, model: &str, latency_ms: u128) -> CheckResult {
    let vector = &answer["data"][0]["embedding"];
    let (components, encoding) = match vector {
        Value::String(text) => (text.trim_end_matches('=').len() * 3 / 4 / COMPONENT_BYTES, "base64 honoured"),
        Value::Array(numbers) => (numbers.len(), "base64 not honoured: it answers numbers, which vecho reads too"),
        _ => (0, ""),
    };
    if components == 0 {
        let message = format!("status 200 after {latency_ms} ms, but the answer has no vector");
        return CheckResult::fault(
            CHECK,
            message,
            "set upstream.url to the base of an OpenAI-compatible embeddings API",
        );
    }
    let message =
        format!("{model}: key accepted, status 200 after {latency_ms} ms, {components} dimensions, {encoding}");
    CheckResult::ok(CHECK, message)
}

/// Describes an error. The message of the server is left out, because it may repeat a part of the key.
fn refusal(status: StatusCode, answer: &Value, model: &str) -> FailedStep {
    let code = answer["error"]["code"].as_str().or(answer["error"]["type"].as_str()).filter(|code| is_plain(code));
    let code = code.map_or_else(String::new, |code| format!(" ({code})"));
    let (meaning, remedy) = match status.as_u16() {
        401 | 403 => ("the key is refused", "set upstream.api_key or OPENAI_API_KEY to a valid key with access"),
        404 => {
            ("the path or the model is unknown", "correct upstream.url, or name a model of the service with --model")
        }
        429 => ("a limit or the quota of the key is reached", "look at the limits and the billing of the account"),
        400..500 => ("the request is refused", "name an embeddings model of the service with --model"),
        _ => ("the service fails", "look at the state of the service"),
    };
    FailedStep { message: format!("{model}: {meaning}: status {}{code}", status.as_u16()), remedy: remedy.to_owned() }
}

/// Returns true if a code is one short word in snake case, so it cannot be a secret in a foreign form.
fn is_plain(code: &str) -> bool {
    code.len() <= 40 && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}
