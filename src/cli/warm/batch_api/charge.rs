//! Counts a job towards the budgets of the vecho that runs.

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::state::JobState;
use crate::admin::CHARGE_PATH;
use crate::cli::client::{Cause, Client, read_whole, whole};
use crate::cli::moving::CommandError;
use crate::config::Config;
use crate::wire::error_fields;

/// Part of the usual price that the service bills for a job, in percent.
const PRICE_PERCENT: u8 = 50;

/// Counts the expected cost of a job. Fails if a budget does not cover it. Without a running vecho there is nothing to
/// count it.
pub(super) async fn charge(config: &Config, state: &JobState) -> Result<(), CommandError> {
    let client = Client::of_ops_port(config);
    let body = charge_body(state).to_string();
    let mut request = client.request(Method::POST, CHARGE_PATH, whole(body));
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let answer = match client.send(request).await {
        Ok(answer) => answer,
        Err(error) if matches!(error.cause, Cause::Refused) => return Ok(()),
        Err(error) => return Err(error.to_string()),
    };
    let status = answer.status();
    let said = error_fields(&read_whole(answer.into_body()).await?).message;
    match status {
        // An older vecho knows neither the route nor budgets.
        StatusCode::OK | StatusCode::NOT_FOUND => Ok(()),
        StatusCode::TOO_MANY_REQUESTS => Err(format!("nothing was sent: {said}")),
        _ => Err(format!("nothing was sent, since the ops port does not count it ({status}): {said}")),
    }
}

fn charge_body(state: &JobState) -> Value {
    let tokens: u64 = state.parts.iter().map(|part| part.tokens).sum();
    let target = &state.target;
    json!({
        "model": target.model,
        "namespace": target.namespace,
        "tokens": tokens,
        "price_percent": PRICE_PERCENT,
    })
}
