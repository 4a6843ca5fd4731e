//! Checks that hold for every answer under all conditions.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde_json::Value;
use vecho::flow::mock;
use vecho::wire;

use super::ledger::Allowed;
use super::weather::successor;
use super::wish::{Control, USUAL, Wish};
use crate::harness::Stub;
use crate::harness::client::Answer;
use crate::harness::stub::{Input, tokens};

/// The sources of an answer's inputs, according to its headers.
#[derive(Clone, Copy, Debug, Default)]
struct Sources {
    memory: usize,
    joined: usize,
    upstream: usize,
    stale: usize,
    mock: usize,
}

/// Conditions of a whole step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// The configured fallback mode.
    pub(super) fallback: &'static str,
    /// True if no fault is injected in this step.
    pub(super) calm: bool,
}

macro_rules! ensure {
    ($holds:expr, $($what:tt)+) => {
        if !$holds {
            return Err(format!($($what)+));
        }
    };
}

/// Checks one complete answer.
pub(super) fn judge(wish: &Wish, answer: &Answer, allowed: &Allowed, terms: Terms) -> Result<(), String> {
    if answer.status != 200 {
        return judge_error(wish, answer, terms);
    }
    let word = answer.header("x-vecho-cache").ok_or("no x-vecho-cache")?;
    if word == "bypass" {
        ensure!(wish.control != Control::OnlyIfCached, "only-if-cached was passed through");
        return Ok(());
    }
    let sources = read_sources(answer.header("x-vecho-sources").ok_or("no x-vecho-sources")?)?;
    judge_sources(wish, sources, allowed, terms)?;
    ensure!(word == expected_word(sources), "x-vecho-cache {word} with {sources:?}");
    let body = answer.json();
    judge_body(wish, &body, sources)?;
    judge_usage(wish, answer, &body, sources)?;
    judge_headers(answer, &body, sources)
}

fn judge_error(wish: &Wish, answer: &Answer, terms: Terms) -> Result<(), String> {
    let body: Value = serde_json::from_slice(&answer.body).map_err(|error| format!("an error is not JSON: {error}"))?;
    let error = body["error"].as_object().ok_or("no error envelope")?;
    for key in ["message", "type", "param", "code"] {
        ensure!(error.contains_key(key), "an error without {key}: {body}");
    }
    if wish.control == Control::OnlyIfCached {
        ensure!(answer.status == 504 && error["code"] == "not_cached", "only-if-cached ended as {body}");
        return Ok(());
    }
    ensure!(!terms.calm, "{} although nothing went wrong: {body}", answer.status);
    ensure!([400, 429, 500, 502, 503, 504].contains(&answer.status), "an unexpected status {}", answer.status);
    Ok(())
}

fn read_sources(text: &str) -> Result<Sources, String> {
    let mut sources = Sources::default();
    for part in text.split(", ") {
        let (name, count) = part.split_once('=').ok_or_else(|| format!("sources {text:?}"))?;
        let count = count.parse().map_err(|_| format!("sources {text:?}"))?;
        *match name {
            "memory" => &mut sources.memory,
            "joined" => &mut sources.joined,
            "upstream" => &mut sources.upstream,
            "stale" => &mut sources.stale,
            "mock" => &mut sources.mock,
            other => return Err(format!("the source {other}")),
        } = count;
    }
    Ok(sources)
}

fn judge_sources(wish: &Wish, sources: Sources, allowed: &Allowed, terms: Terms) -> Result<(), String> {
    let Sources { memory, joined, upstream, stale, mock } = sources;
    let (sum, inputs) = (memory + joined + upstream + stale + mock, wish.inputs.len());
    ensure!(sum == inputs, "{sources:?} for {inputs} inputs");
    ensure!(memory <= allowed.memory, "{sources:?}, but at most {allowed:?} can be stored");
    ensure!(joined <= allowed.joined, "{sources:?}, but at most {allowed:?} are asked by others");
    ensure!(stale <= allowed.stale, "{sources:?}, but at most {allowed:?} are kept");
    let modes = ["error", "stale", "mock"];
    let rank = |mode: &str| modes.iter().position(|known| *known == mode).expect("a mode has a name");
    let mode = rank(terms.fallback).min(wish.fallback.map_or(2, rank));
    ensure!(mock == 0 || mode == 2, "{sources:?} although mocks are not allowed");
    ensure!(stale == 0 || mode >= 1, "{sources:?} although stale is not allowed");
    ensure!(stale + mock == 0 || !terms.calm, "{sources:?} although nothing went wrong");
    ensure!(wish.control != Control::OnlyIfCached || memory == inputs, "only-if-cached was answered from {sources:?}");
    Ok(())
}

const fn expected_word(sources: Sources) -> &'static str {
    match sources {
        Sources { mock: 1.., .. } => "mock",
        Sources { stale: 1.., .. } => "stale",
        Sources { joined: 0, upstream: 0, .. } => "hit",
        Sources { memory: 1.., .. } => "partial",
        _ => "miss",
    }
}

fn judge_body(wish: &Wish, body: &Value, sources: Sources) -> Result<(), String> {
    let data = body["data"].as_array().ok_or("no data")?;
    ensure!(body["object"] == "list" && data.len() == wish.inputs.len(), "{} items", data.len());
    let mocks: BTreeSet<u64> =
        body["vecho"]["mock"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
    ensure!(mocks.len() == sources.mock, "mocks {mocks:?} with {sources:?}");
    ensure!(sources.mock > 0 || body.get("vecho").is_none(), "a mark without a mock");
    let model = body["model"].as_str().ok_or("no model")?;
    ensure!(model == wish.model || model == successor(wish.model), "the model {model}");
    let mut lengths = BTreeSet::new();
    for (place, (item, input)) in (0_u64..).zip(data.iter().zip(&wish.inputs)) {
        ensure!(item["object"] == "embedding" && item["index"] == place, "item {place} is {}", item["index"]);
        ensure!(item["embedding"].is_string() == (wish.encoding == Some("base64")), "the wrong encoding at {place}");
        let vector = crate::harness::client::vector(&item["embedding"]);
        lengths.insert(vector.len());
        let expected = if mocks.contains(&place) {
            mocked(wish.model, vector.len(), input)
        } else {
            Stub::vector(model, Some(wish.dimensions.unwrap_or(USUAL)), input.clone())
        };
        ensure!(bits(&vector) == bits(&expected), "a wrong vector at {place}: {sources:?}, model {model}, {mocks:?}");
    }
    ensure!(lengths.len() == 1, "vectors of lengths {lengths:?}");
    Ok(())
}

fn bits(vector: &[f32]) -> Vec<u32> {
    vector.iter().map(|component| component.to_bits()).collect()
}

fn mocked(model: &str, dimension: usize, input: &Input) -> Vec<f32> {
    let input = match input {
        Input::Text(text) => wire::Input::Text(Cow::Borrowed(text)),
        Input::Tokens(tokens) => wire::Input::Tokens(tokens.clone()),
    };
    mock::vector(model, dimension, &input).components().collect()
}

fn judge_usage(wish: &Wish, answer: &Answer, body: &Value, sources: Sources) -> Result<(), String> {
    let usage = &body["usage"];
    let prompt = usage["prompt_tokens"].as_u64().ok_or("no usage")?;
    ensure!(usage["total_tokens"] == prompt, "usage {usage}");
    if sources.mock > 0 {
        return Ok(());
    }
    let counted: u64 = wish.inputs.iter().map(|input| tokens(input.clone()) as u64).sum();
    if wish.model.starts_with("text-embedding-3-") {
        ensure!(prompt == counted, "usage {prompt} instead of {counted}, {sources:?}");
    } else {
        // For these models only the sum of a call is known. An input's share is estimated from its length.
        ensure!((1..=counted * 10).contains(&prompt), "usage {prompt} for about {counted}");
    }
    let note = answer.header("x-vecho-tokens").ok_or("no x-vecho-tokens")?;
    let part = |name: &str| note.split(", ").find_map(|part| part.strip_prefix(name)?.parse::<u64>().ok());
    let (billed, saved) = (part("billed=").ok_or("no billed")?, part("saved=").ok_or("no saved")?);
    ensure!(billed + saved == prompt, "{note} with usage {prompt}");
    ensure!(billed == 0 || sources.upstream > 0, "{note} with {sources:?}");
    Ok(())
}

fn judge_headers(answer: &Answer, body: &Value, sources: Sources) -> Result<(), String> {
    ensure!(answer.header("x-request-id").is_some_and(|id| !id.is_empty()), "no x-request-id");
    let (header, model) = (answer.header("openai-model"), body["model"].as_str());
    ensure!(header == model, "openai-model {header:?} over a body of {model:?}, {sources:?}");
    for name in ["set-cookie", "alt-svc", "strict-transport-security"] {
        ensure!(answer.header(name).is_none(), "{name} was passed on");
    }
    let replayed = answer.headers.keys().any(|name| name.as_str().starts_with("x-ratelimit-"));
    ensure!(!replayed || sources.upstream > 0, "rate limits of no call, {sources:?}");
    Ok(())
}
