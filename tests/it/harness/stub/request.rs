//! Parses an embeddings request like the real service, and refuses the same requests.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::calls::Call;
use super::state::Limits;
use super::vectors::{Input, Space, tokens};

/// The service's error answer.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) kind: &'static str,
    pub(crate) code: Option<&'static str>,
    pub(crate) message: String,
}

/// A request that will be answered.
pub(crate) struct EmbedCall {
    pub(crate) space: Space,
    pub(crate) inputs: Vec<Input>,
    pub(crate) base64: bool,
    /// True if components are whole numbers from -128 to 127.
    pub(crate) int8: bool,
    pub(crate) tokens: usize,
}

impl EmbedCall {
    /// Parses the call. Returns the service's refusal as an error.
    pub(crate) fn read(call: &Call, limits: Limits) -> Result<Self, Refusal> {
        let text = String::from_utf8_lossy(&call.body);
        let body: Value = serde_json::from_str(&without_lone_surrogates(&text)).map_err(|_| not_json())?;
        let body = body.as_object().ok_or_else(not_json)?;
        let space = read_space(call, body)?;
        let inputs = read_inputs(body.get("input").unwrap_or(&Value::Null))?;
        let tokens = count_tokens(&inputs, limits)?;
        let base64 = body.get("encoding_format").and_then(Value::as_str) == Some("base64");
        let int8 = body.get("output_dtype").and_then(Value::as_str) == Some("int8");
        Ok(Self { space, inputs, base64, int8, tokens })
    }
}

fn read_space(call: &Call, body: &Map<String, Value>) -> Result<Space, Refusal> {
    let named = body.get("model").and_then(Value::as_str).map(str::to_owned);
    let model = deployment(call).or(named).ok_or_else(|| bad_request("you must provide a model parameter"))?;
    if model.starts_with("missing-") {
        let message = format!("The model `{model}` does not exist or you do not have access to it.");
        let code = Some("model_not_found");
        return Err(Refusal { status: 404, kind: "invalid_request_error", code, message });
    }
    let named = ["dimensions", "output_dimension"].map(|name| body.get(name).filter(|value| !value.is_null()));
    let dimensions = match named.into_iter().flatten().next() {
        None => None,
        Some(value) => Some(read_dimensions(&model, value)?),
    };
    Ok(Space { model, dimensions, extras: extras(body) })
}

fn read_dimensions(model: &str, value: &Value) -> Result<usize, Refusal> {
    if model == "text-embedding-ada-002" {
        return Err(bad_request("This model does not support specifying dimensions."));
    }
    // A whole number may be written as `4.0`.
    let text = value.as_f64().map(|number| number.to_string()).unwrap_or_default();
    let whole = text.parse().ok().filter(|number| (1..=8192).contains(number));
    whole.ok_or_else(|| bad_request("Invalid value for 'dimensions' = 0. Must be greater than or equal to 1."))
}

/// Returns the model that Azure's path names.
fn deployment(call: &Call) -> Option<String> {
    let (_, rest) = call.route().split_once("/deployments/")?;
    rest.split('/').next().map(str::to_owned)
}

fn extras(body: &Map<String, Value>) -> String {
    let mut extras = String::new();
    for name in ["input_type", "task"] {
        if let Some(value) = body.get(name).filter(|value| !value.is_null()) {
            let _ = writeln!(extras, "{name}={value:?}");
        }
    }
    extras
}

fn read_inputs(input: &Value) -> Result<Vec<Input>, Refusal> {
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

/// Parses one text or one token array. Returns `None` if it is empty or has another type.
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

fn count_tokens(inputs: &[Input], limits: Limits) -> Result<usize, Refusal> {
    if inputs.len() > limits.inputs {
        let (found, most) = (inputs.len(), limits.inputs);
        return Err(bad_request(&format!(
            "Invalid 'input': array too long. Expected an array with maximum length {most}, but got an array with \
             length {found} instead."
        )));
    }
    let counts: Vec<usize> = inputs.iter().map(|input| tokens(input.clone())).collect();
    if let Some(count) = counts.iter().find(|count| **count > limits.tokens_per_input) {
        let most = limits.tokens_per_input;
        return Err(bad_request(&format!(
            "This model's maximum context length is {most} tokens, however you requested {count} tokens ({count} in your \
             prompt; 0 for the completion). Please reduce your prompt; or completion length."
        )));
    }
    let total = counts.iter().sum();
    if total > limits.tokens {
        let message = format!("Requested {total} tokens, max {} tokens per request", limits.tokens);
        let kind = "max_tokens_per_request";
        return Err(Refusal { status: 400, kind, code: Some(kind), message });
    }
    Ok(total)
}

fn bad_request(message: &str) -> Refusal {
    Refusal { status: 400, kind: "invalid_request_error", code: None, message: message.to_owned() }
}

fn not_json() -> Refusal {
    bad_request("We could not parse the JSON body of your request.")
}

/// Replaces each lone surrogate, such as `"\ud800"`, by the replacement character. The service accepts lone
/// surrogates, and the JSON parser used here does not.
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

/// Returns the surrogate that an escape at the start of the text names.
fn surrogate(escape: &str) -> Option<u16> {
    let digits = escape.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok().filter(|unit| (0xd800..=0xdfff).contains(unit))
}
