//! Reads a request for embeddings as the service does, and refuses what the service refuses.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::calls::Call;
use super::reply::Reply;
use super::state::Limits;
use super::vectors::{Input, Space, tokens};

/// A request that will be answered.
pub(crate) struct EmbedCall {
    pub(crate) space: Space,
    pub(crate) inputs: Vec<Input>,
    pub(crate) base64: bool,
    pub(crate) tokens: usize,
}

impl EmbedCall {
    /// Reads the call, or says what the service would answer instead.
    pub(crate) fn read(call: &Call, limits: Limits) -> Result<Self, Reply> {
        let text = String::from_utf8_lossy(&call.body);
        let body: Value = serde_json::from_str(&without_lone_surrogates(&text)).map_err(|_| not_json())?;
        let body = body.as_object().ok_or_else(not_json)?;
        let space = read_space(call, body)?;
        let inputs = read_inputs(body.get("input").unwrap_or(&Value::Null))?;
        let tokens = count_tokens(&inputs, limits)?;
        let base64 = body.get("encoding_format").and_then(Value::as_str) == Some("base64");
        Ok(Self { space, inputs, base64, tokens })
    }
}

fn read_space(call: &Call, body: &Map<String, Value>) -> Result<Space, Reply> {
    let named = body.get("model").and_then(Value::as_str).map(str::to_owned);
    let model = deployment(call).or(named).ok_or_else(|| bad_request("you must provide a model parameter"))?;
    if model.starts_with("missing-") {
        let message = format!("The model `{model}` does not exist or you do not have access to it.");
        return Err(Reply::error(404, "invalid_request_error", Some("model_not_found"), &message));
    }
    let dimensions = match body.get("dimensions") {
        None | Some(Value::Null) => None,
        Some(value) => Some(read_dimensions(&model, value)?),
    };
    Ok(Space { model, dimensions, extras: extras(body) })
}

fn read_dimensions(model: &str, value: &Value) -> Result<usize, Reply> {
    if model == "text-embedding-ada-002" {
        return Err(bad_request("This model does not support specifying dimensions."));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be a small whole number")]
    let whole = value.as_f64().filter(|number| number.fract() == 0.0 && (1.0..=8192.0).contains(number));
    whole
        .map(|number| number as usize)
        .ok_or_else(|| bad_request("Invalid value for 'dimensions' = 0. Must be greater than or equal to 1."))
}

/// Azure names the model in the path.
fn deployment(call: &Call) -> Option<String> {
    let (_, rest) = call.route().split_once("/deployments/")?;
    rest.split('/').next().map(str::to_owned)
}

fn extras(body: &Map<String, Value>) -> String {
    let mut extras = String::new();
    for name in ["input_type", "task"] {
        if let Some(value) = body.get(name) {
            let _ = writeln!(extras, "{name}={value:?}");
        }
    }
    extras
}

fn read_inputs(input: &Value) -> Result<Vec<Input>, Reply> {
    let inputs = match input {
        Value::String(_) => read_input(input).map(|input| vec![input]),
        Value::Array(items) if items.is_empty() => None,
        Value::Array(items) if items.iter().all(Value::is_number) => read_input(input).map(|input| vec![input]),
        Value::Array(items) => items.iter().map(read_input).collect(),
        _ => None,
    };
    inputs.ok_or_else(|| {
        bad_request(
            "'$.input' is invalid. Please check the API reference: https://platform.openai.com/docs/api-reference.",
        )
    })
}

/// One text or one token array; nothing where it is empty or something else.
fn read_input(value: &Value) -> Option<Input> {
    match value {
        Value::String(text) if !text.is_empty() => Some(Input::Text(text.clone())),
        Value::Array(items) if !items.is_empty() => {
            let token = |item: &Value| item.as_u64().and_then(|token| u32::try_from(token).ok());
            items.iter().map(token).collect::<Option<Vec<u32>>>().map(Input::Tokens)
        }
        _ => None,
    }
}

fn count_tokens(inputs: &[Input], limits: Limits) -> Result<usize, Reply> {
    if inputs.len() > limits.max_inputs {
        let (found, most) = (inputs.len(), limits.max_inputs);
        return Err(bad_request(&format!(
            "Invalid 'input': array too long. Expected an array with maximum length {most}, but got an array with length {found} instead."
        )));
    }
    let counts: Vec<usize> = inputs.iter().map(|input| tokens(input.clone())).collect();
    if let Some(count) = counts.iter().find(|count| **count > limits.max_input_tokens) {
        let most = limits.max_input_tokens;
        return Err(bad_request(&format!(
            "This model's maximum context length is {most} tokens, however you requested {count} tokens ({count} in your \
             prompt; 0 for the completion). Please reduce your prompt; or completion length."
        )));
    }
    let total = counts.iter().sum();
    if total > limits.max_tokens {
        let message = format!("Requested {total} tokens, max {} tokens per request", limits.max_tokens);
        return Err(Reply::error(400, "max_tokens_per_request", Some("max_tokens_per_request"), &message));
    }
    Ok(total)
}

fn bad_request(message: &str) -> Reply {
    Reply::error(400, "invalid_request_error", None, message)
}

fn not_json() -> Reply {
    bad_request("We could not parse the JSON body of your request.")
}

/// The service reads `"\ud800"` and JSON readers here do not: each lone half becomes the replacement character.
fn without_lone_surrogates(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let escape = &rest[at..];
        let taken = match (surrogate(escape), escape.get(6..).and_then(surrogate)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(_), _) => 0,
            (None, _) => 1 + escape[1..].chars().next().map_or(0, char::len_utf8),
        };
        if taken == 0 {
            out.push_str("\\ufffd");
            rest = &escape[6..];
        } else {
            out.push_str(&escape[..taken]);
            rest = &escape[taken..];
        }
    }
    out.push_str(rest);
    out
}

/// The surrogate that an escape at the start of the text names.
fn surrogate(escape: &str) -> Option<u16> {
    let digits = escape.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok().filter(|unit| (0xd800..=0xdfff).contains(unit))
}
