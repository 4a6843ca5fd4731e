//! The parts that dialects are composed of: checks, which refuse, and changes of the answer.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::answer::{Draft, Indices};
use super::dialect::{Fault, refuse};
use super::received::{Form, Received};
use crate::harness::stub::tokens;

/// `encoding_format` may be absent or null, or one of these values.
pub(crate) fn encodings(accepted: &'static [&'static str], status: u16) -> impl Fn(&Received) -> Result<(), Fault> {
    move |received| match received.member("encoding_format") {
        None => Ok(()),
        Some(value) if value.as_str().is_some_and(|format| accepted.contains(&format)) => Ok(()),
        Some(value) => refuse(status, format!("encoding_format {value} is not supported; accepted: {accepted:?}")),
    }
}

/// Members that must not be there, whatever their value.
pub(crate) fn without(names: &'static [&'static str], status: u16) -> impl Fn(&Received) -> Result<(), Fault> {
    move |received| match names.iter().find(|name| received.members.contains_key(**name)) {
        Some(name) => refuse(status, format!("{name}: Extra inputs are not permitted")),
        None => Ok(()),
    }
}

/// A member that must be a text.
pub(crate) fn requires(
    name: &'static str,
    status: u16,
    message: &'static str,
) -> impl Fn(&Received) -> Result<(), Fault> {
    move |received| if received.text(name).is_some() { Ok(()) } else { refuse(status, message) }
}

/// `input` must have one of these forms.
pub(crate) fn forms(
    accepted: &'static [Form],
    status: u16,
    message: &'static str,
) -> impl Fn(&Received) -> Result<(), Fault> {
    move |received| if accepted.contains(&received.form) { Ok(()) } else { refuse(status, message) }
}

/// No more inputs than this; `say` writes the message from the number of inputs.
pub(crate) fn max_inputs(
    most: usize,
    status: u16,
    say: fn(usize) -> String,
) -> impl Fn(&Received) -> Result<(), Fault> {
    move |received| if received.inputs.len() <= most { Ok(()) } else { refuse(status, say(received.inputs.len())) }
}

/// No more tokens than this in all inputs together.
pub(crate) fn max_tokens(most: usize, status: u16, message: &'static str) -> impl Fn(&Received) -> Result<(), Fault> {
    move |received| {
        let count: usize = received.inputs.iter().map(|input| tokens(input.clone())).sum();
        if count <= most { Ok(()) } else { refuse(status, message) }
    }
}

/// Texts that hold this word fail.
pub(crate) fn fails_at(
    word: &'static str,
    status: u16,
    message: &'static str,
) -> impl Fn(&Received) -> Result<(), Fault> {
    move |received| if received.mentions(word) { refuse(status, message) } else { Ok(()) }
}

/// Empty texts fail.
pub(crate) fn no_empty_text(status: u16, message: &'static str) -> impl Fn(&Received) -> Result<(), Fault> {
    move |received| if received.texts().any(str::is_empty) { refuse(status, message) } else { Ok(()) }
}

/// A parameter that the query must have.
pub(crate) fn query(name: &'static str) -> impl Fn(&Received) -> Result<(), Fault> {
    move |received| match received.path.split_once('?') {
        Some((_, query)) if query.contains(name) => Ok(()),
        _ => refuse(404, "Resource not found"),
    }
}

/// A header that must be there.
pub(crate) fn header(
    name: &'static str,
    status: u16,
    message: &'static str,
) -> impl Fn(&Received) -> Result<(), Fault> {
    move |received| if received.headers.contains_key(name) { Ok(()) } else { refuse(status, message) }
}

/// Floats, whatever was asked for.
pub(crate) fn floats(_: &Received, draft: &mut Draft) {
    draft.base64 = false;
}

/// base64 holds f64.
pub(crate) fn float64(_: &Received, draft: &mut Draft) {
    draft.wide = true;
}

/// `dimensions` changes nothing.
pub(crate) fn ignores_dimensions(_: &Received, draft: &mut Draft) {
    draft.space.dimensions = None;
}

/// Items in reverse order, each with its right `index`.
pub(crate) fn reversed(_: &Received, draft: &mut Draft) {
    draft.reversed = true;
}

/// The item whose `index` is 0 has none.
pub(crate) fn no_zero_index(_: &Received, draft: &mut Draft) {
    draft.indices = Indices::NotZero;
}

/// No item has an `index`.
pub(crate) fn no_index(_: &Received, draft: &mut Draft) {
    draft.indices = Indices::Absent;
}

/// No `usage`.
pub(crate) fn no_usage(_: &Received, draft: &mut Draft) {
    draft.usage = None;
}

/// `usage` without a count.
pub(crate) fn zero_usage(_: &Received, draft: &mut Draft) {
    draft.usage = Some(json!({"prompt_tokens": 0, "total_tokens": 0}));
}

/// `usage` has `total_tokens` alone.
pub(crate) fn total_tokens_alone(_: &Received, draft: &mut Draft) {
    let total = draft.usage.as_ref().map(|usage| usage["total_tokens"].clone());
    draft.usage = Some(json!({ "total_tokens": total }));
}

/// `usage` is what OpenAI counts.
pub(crate) fn openai_usage(received: &Received, draft: &mut Draft) {
    let count: usize = received.inputs.iter().map(|input| tokens(input.clone())).sum();
    draft.usage = Some(json!({"prompt_tokens": count, "total_tokens": count}));
}

/// A further member of the envelope.
pub(crate) fn says(name: &'static str, value: impl Into<Value>) -> impl Fn(&Received, &mut Draft) {
    let value = value.into();
    move |_, draft| draft.members.push((name, value.clone()))
}

/// A further header.
pub(crate) fn sends(name: &'static str, value: &'static str) -> impl Fn(&Received, &mut Draft) {
    move |_, draft| draft.headers.push((name, value))
}

/// The answer names these models in turn.
pub(crate) fn names_in_turn(names: &'static [&'static str]) -> impl Fn(&Received, &mut Draft) {
    let next = AtomicUsize::new(0);
    move |_, draft| names[next.fetch_add(1, Ordering::Relaxed) % names.len()].clone_into(&mut draft.model)
}
