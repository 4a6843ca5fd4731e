//! The parts of dialects: checks that refuse requests, and changes of the answer.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::answer::{Draft, Indices};
use super::dialect::{Fault, refuse};
use super::received::{Form, Received};
use crate::harness::stub::tokens;

/// Requires `encoding_format` to be absent, null, or one of these values.
pub(crate) fn encodings(accepted: &'static [&'static str], status: u16) -> impl Fn(&Received) -> Result<(), Fault> {
    move |received| match received.member("encoding_format") {
        None => Ok(()),
        Some(value) if value.as_str().is_some_and(|format| accepted.contains(&format)) => Ok(()),
        Some(value) => refuse(status, format!("encoding_format {value} is not supported; accepted: {accepted:?}")),
    }
}

/// Refuses requests with one of these members, even if its value is null.
pub(crate) fn without(names: &'static [&'static str], status: u16) -> impl Fn(&Received) -> Result<(), Fault> {
    move |received| match names.iter().find(|name| received.members.contains_key(**name)) {
        Some(name) => refuse(status, format!("{name}: Extra inputs are not permitted")),
        None => Ok(()),
    }
}

/// Requires a member that is a string.
pub(crate) fn requires(
    name: &'static str,
    status: u16,
    message: &'static str,
) -> impl Fn(&Received) -> Result<(), Fault> {
    move |received| if received.text(name).is_some() { Ok(()) } else { refuse(status, message) }
}

/// Requires `input` to have one of these forms.
pub(crate) fn forms(
    accepted: &'static [Form],
    status: u16,
    message: &'static str,
) -> impl Fn(&Received) -> Result<(), Fault> {
    move |received| if accepted.contains(&received.form) { Ok(()) } else { refuse(status, message) }
}

/// Limits the number of inputs. `say` builds the message from the number of inputs in the request.
pub(crate) fn max_inputs(
    most: usize,
    status: u16,
    say: fn(usize) -> String,
) -> impl Fn(&Received) -> Result<(), Fault> {
    move |received| if received.inputs.len() <= most { Ok(()) } else { refuse(status, say(received.inputs.len())) }
}

/// Limits the total number of tokens of all inputs.
pub(crate) fn max_tokens(most: usize, status: u16, message: &'static str) -> impl Fn(&Received) -> Result<(), Fault> {
    move |received| {
        let count: usize = received.inputs.iter().map(|input| tokens(input.clone())).sum();
        if count <= most { Ok(()) } else { refuse(status, message) }
    }
}

/// Refuses texts that contain this word.
pub(crate) fn fails_at(
    word: &'static str,
    status: u16,
    message: &'static str,
) -> impl Fn(&Received) -> Result<(), Fault> {
    move |received| if received.mentions(word) { refuse(status, message) } else { Ok(()) }
}

/// Refuses empty texts.
pub(crate) fn no_empty_text(status: u16, message: &'static str) -> impl Fn(&Received) -> Result<(), Fault> {
    move |received| if received.texts().any(str::is_empty) { refuse(status, message) } else { Ok(()) }
}

/// Requires a query parameter.
pub(crate) fn query(name: &'static str) -> impl Fn(&Received) -> Result<(), Fault> {
    move |received| match received.path.split_once('?') {
        Some((_, query)) if query.contains(name) => Ok(()),
        _ => refuse(404, "Resource not found"),
    }
}

/// Requires a header.
pub(crate) fn header(
    name: &'static str,
    status: u16,
    message: &'static str,
) -> impl Fn(&Received) -> Result<(), Fault> {
    move |received| if received.headers.contains_key(name) { Ok(()) } else { refuse(status, message) }
}

/// Answers with floats, even if base64 was requested.
pub(crate) fn floats(_: &Received, draft: &mut Draft) {
    draft.base64 = false;
}

/// Writes f64 in base64.
pub(crate) fn float64(_: &Received, draft: &mut Draft) {
    draft.wide = true;
}

/// Ignores `dimensions`.
pub(crate) fn ignores_dimensions(_: &Received, draft: &mut Draft) {
    draft.space.dimensions = None;
}

/// Reverses the items; each one keeps its right `index`.
pub(crate) fn reversed(_: &Received, draft: &mut Draft) {
    draft.reversed = true;
}

/// Omits the `index` whose value is 0.
pub(crate) fn no_zero_index(_: &Received, draft: &mut Draft) {
    draft.indices = Indices::NotZero;
}

/// Omits every `index`.
pub(crate) fn no_index(_: &Received, draft: &mut Draft) {
    draft.indices = Indices::Absent;
}

/// Omits `usage`.
pub(crate) fn no_usage(_: &Received, draft: &mut Draft) {
    draft.usage = None;
}

/// Reports a `usage` of zero tokens.
pub(crate) fn zero_usage(_: &Received, draft: &mut Draft) {
    draft.usage = Some(json!({"prompt_tokens": 0, "total_tokens": 0}));
}

/// Reports only `total_tokens` in `usage`.
pub(crate) fn total_tokens_alone(_: &Received, draft: &mut Draft) {
    let total = draft.usage.as_ref().map(|usage| usage["total_tokens"].clone());
    draft.usage = Some(json!({ "total_tokens": total }));
}

/// Reports OpenAI's token count in `usage`.
pub(crate) fn openai_usage(received: &Received, draft: &mut Draft) {
    let count: usize = received.inputs.iter().map(|input| tokens(input.clone())).sum();
    draft.usage = Some(json!({"prompt_tokens": count, "total_tokens": count}));
}

/// Adds a member to the envelope.
pub(crate) fn says(name: &'static str, value: impl Into<Value>) -> impl Fn(&Received, &mut Draft) {
    let value = value.into();
    move |_, draft| draft.members.push((name, value.clone()))
}

/// Adds a header.
pub(crate) fn sends(name: &'static str, value: &'static str) -> impl Fn(&Received, &mut Draft) {
    move |_, draft| draft.headers.push((name, value))
}

/// Names these models in turn.
pub(crate) fn names_in_turn(names: &'static [&'static str]) -> impl Fn(&Received, &mut Draft) {
    let next = AtomicUsize::new(0);
    move |_, draft| names[next.fetch_add(1, Ordering::Relaxed) % names.len()].clone_into(&mut draft.model)
}
