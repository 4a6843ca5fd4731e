//! Reads the candidates of a similarity request as the caller wrote them.

use std::fmt;

use serde::Deserializer as _;
use serde::de::{SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::inputs::{MAX_INPUTS, Name};
use super::members::syntax_fault;
use super::similar_fault::SimilarFault;
use super::{Bypass, BypassCause, InputKind};

/// Returns the kind of an input by its first character, or `None` if it is neither a text nor a list.
pub(super) fn kind_of(input: &str) -> Option<InputKind> {
    match input.as_bytes().first() {
        Some(b'"') => Some(InputKind::Text),
        Some(b'[') => Some(InputKind::Tokens),
        _ => None,
    }
}

pub(super) fn is_empty(input: &str) -> bool {
    // The list may hold white space, a text may not.
    input == "\"\"" || input.strip_prefix('[').is_some_and(|rest| rest.trim_ascii() == "]")
}

/// Returns true if an input is a list of whole numbers. Nothing is collected.
pub(super) fn is_tokens(input: &str) -> bool {
    let mut json = serde_json::Deserializer::from_str(input);
    json.deserialize_seq(TokensVisitor).is_ok()
}

/// Returns true if a text holds half of a surrogate pair, for which there is no vector.
pub(super) fn has_lone_surrogate(text: &str) -> bool {
    // Only an escape can write one.
    text.contains("\\u") && serde_json::from_str::<Name<'_>>(text).is_err()
}

/// Reads the candidates of a request: all of one kind, none empty, and not more than [`MAX_INPUTS`]. All faults are found
/// here, before the first of them is embedded.
pub(super) fn read_candidates(text: &str) -> Result<(Vec<&RawValue>, InputKind), SimilarFault> {
    let fault = |message: &str| SimilarFault::of("candidates", message);
    let mut json = serde_json::Deserializer::from_str(text);
    let candidates = json.deserialize_seq(CandidatesVisitor).map_err(|error| match syntax_fault(&error) {
        Bypass::WrongType => fault("must be a list of texts or of token arrays."),
        other => BypassCause::from(other).into(),
    })?;
    if candidates.len() > MAX_INPUTS {
        return Err(fault(&format!("has more than {MAX_INPUTS} entries.")));
    }
    let first = candidates.first().ok_or_else(|| fault("is empty."))?;
    let kind = kind_of(first.get()).ok_or_else(|| fault("must hold texts or token arrays."))?;
    for (place, candidate) in candidates.iter().enumerate() {
        if kind_of(candidate.get()) != Some(kind) {
            return Err(fault(&format!("must hold entries of one kind, and entry {place} is not a {}.", one(kind))));
        }
        if is_empty(candidate.get()) {
            return Err(fault(&format!("must not hold empty entries, and entry {place} is empty.")));
        }
        if kind == InputKind::Text && has_lone_surrogate(candidate.get()) {
            return Err(fault(&format!("must not hold half of a surrogate pair, and entry {place} does.")));
        }
        if kind == InputKind::Tokens && !is_tokens(candidate.get()) {
            return Err(fault(&format!("must hold whole numbers in token arrays, and entry {place} does not.")));
        }
    }
    Ok((candidates, kind))
}

const fn one(kind: InputKind) -> &'static str {
    match kind {
        InputKind::Text => "text",
        InputKind::Tokens => "token array",
    }
}

/// Visitor of the list. It collects at most one candidate more than allowed, because a caller chooses the length.
struct CandidatesVisitor;

impl<'de> Visitor<'de> for CandidatesVisitor {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of candidates")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut candidates = Vec::new();
        while let Some(candidate) = list.next_element::<&'de RawValue>()? {
            if candidates.len() <= MAX_INPUTS {
                candidates.push(candidate);
            }
        }
        Ok(candidates)
    }
}

/// Visitor of a token array.
struct TokensVisitor;

impl<'de> Visitor<'de> for TokensVisitor {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of tokens")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element::<u32>()?.is_some() {}
        Ok(())
    }
}
