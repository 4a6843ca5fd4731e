//! Compares an answer through vecho with the direct one.

use http::HeaderMap;
use serde_json::Value;

use super::gzip;
use super::row::Row;
use crate::harness::client::Answer;

/// Descriptions of the differences. Empty if the answer is as good as the direct one.
pub(crate) type Complaints = Vec<String>;

/// Compares an answer that vecho may have assembled itself.
pub(crate) fn compare(row: &Row, direct: &Answer, through: &Answer) -> Complaints {
    let mut complaints = Complaints::new();
    if direct.status != through.status {
        complaints.push(format!("status {} in place of {}: {}", through.status, direct.status, shown(through)));
        return complaints;
    }
    if direct.status != 200 {
        if direct.body != through.body {
            complaints.push(format!("body {} in place of {}", shown(through), shown(direct)));
        }
        return complaints;
    }
    if ["mock", "stale"].contains(&word(through)) {
        complaints.push(format!("a {} for a healthy server", word(through)));
    } else if ["bypass", ""].contains(&word(through)) && !takes_turns(row) {
        complaints.extend(compare_bytes(direct, through));
    } else {
        complaints.extend(compare_answers(row, direct, through).err());
    }
    complaints.extend(lost_headers(row, direct, through));
    complaints
}

/// Compares an answer with vectors that the test has computed.
pub(crate) fn has_vectors(answer: &Answer, expected: &[Vec<f32>]) -> Result<(), String> {
    if answer.status != 200 {
        return Err(format!("status {}: {}", answer.status, shown(answer)));
    }
    if ["mock", "stale"].contains(&word(answer)) {
        return Err(format!("a {}", word(answer)));
    }
    let got = vectors(&json(answer)?)?;
    let expected: Vec<Vec<u32>> =
        expected.iter().map(|vector| vector.iter().map(|part| part.to_bits()).collect()).collect();
    if got == expected { Ok(()) } else { Err(format!("other vectors: {} of {}", got.len(), expected.len())) }
}

/// Returns the value of `x-vecho-cache`, or an empty string.
pub(crate) fn word(answer: &Answer) -> &str {
    answer.header("x-vecho-cache").unwrap_or_default()
}

/// Reports an answer that did not come from the cache alone.
pub(crate) fn not_a_hit(answer: &Answer, calls: usize) -> Complaints {
    let mut complaints = Complaints::new();
    if word(answer) != "hit" {
        let reason = answer.header("x-vecho-bypass-reason").unwrap_or_default();
        complaints.push(format!("`{}` {reason} in place of a hit", word(answer)));
    }
    if calls > 0 {
        complaints.push(format!("{calls} calls for a repeated request"));
    }
    complaints
}

/// Checks that the body of a bypass equals the server's own, byte for byte.
fn compare_bytes(direct: &Answer, through: &Answer) -> Option<String> {
    let body = |answer: &Answer| unpacked(answer).map(|bytes| bytes.to_vec());
    (body(direct) != body(through)).then(|| format!("a bypass with {} in place of {}", shown(through), shown(direct)))
}

fn compare_answers(row: &Row, direct: &Answer, through: &Answer) -> Result<(), String> {
    let (direct, through) = (json(direct)?, json(through)?);
    let (expected, got) = (vectors(&direct)?, vectors(&through)?);
    if expected != got {
        return Err(format!("other vectors: {} of {}", got.len(), expected.len()));
    }
    let items = through["data"].as_array().map_or(&[][..], Vec::as_slice);
    if items.iter().any(|item| item["embedding"].is_string() != row.request.asks_base64()) {
        return Err("the other encoding than the client asked for".to_owned());
    }
    let indices: Vec<Option<u64>> = items.iter().map(|item| item["index"].as_u64()).collect();
    if indices != (0..items.len() as u64).map(Some).collect::<Vec<_>>() {
        return Err(format!("indices {indices:?}"));
    }
    compare_envelopes(row, &direct, &through)
}

fn compare_envelopes(row: &Row, direct: &Value, through: &Value) -> Result<(), String> {
    if through["object"] != "list" || !through["model"].is_string() || !through["usage"].is_object() {
        return Err(format!("an envelope without object, model or usage: {}", without_data(through)));
    }
    let named = direct["model"].as_str().unwrap_or_default();
    if through["model"] != named && !takes_turns(row) {
        return Err(format!("model {} in place of {named:?}", through["model"]));
    }
    if direct["id"].is_string() && !through["id"].is_string() {
        return Err("no id".to_owned());
    }
    let billed = |usage: &Value| usage["prompt_tokens"].as_u64().or_else(|| usage["total_tokens"].as_u64());
    let (expected, got) = (billed(&direct["usage"]), billed(&through["usage"]));
    let is_counted = expected.is_some_and(|count| count > 0) && row.request.is_distinct();
    if is_counted && expected != got {
        return Err(format!("usage {got:?} in place of {expected:?}"));
    }
    Ok(())
}

/// Returns true if the server alternates between model names, so two answers always differ.
fn takes_turns(row: &Row) -> bool {
    row.settings.iter().any(|(key, _)| *key == "cache.same_models")
}

/// Reports lost headers. A miss must keep all headers except those of the transport, a hit of a browser those of CORS.
fn lost_headers(row: &Row, direct: &Answer, through: &Answer) -> Option<String> {
    let is_browser = row.request.headers.iter().any(|(name, _)| *name == "origin");
    let is_needed = |name: &str| match word(through) {
        "hit" => is_browser && name.starts_with("access-control-"),
        _ => !["content-length", "content-encoding", "date", "content-type"].contains(&name),
    };
    let lost = |headers: &HeaderMap| {
        let lost = headers.keys().filter(|name| is_needed(name.as_str()) && !through.headers.contains_key(*name));
        lost.map(ToString::to_string).collect::<Vec<_>>()
    };
    let lost = lost(&direct.headers);
    (!lost.is_empty()).then(|| format!("headers lost: {lost:?}"))
}

/// Returns the body, decoded if it is compressed.
fn unpacked(answer: &Answer) -> Result<bytes::Bytes, String> {
    match answer.header("content-encoding") {
        None => Ok(answer.body.clone()),
        Some("gzip") => gzip::unpack(&answer.body).ok_or_else(|| "a body that does not unpack".to_owned()),
        Some(other) => Err(format!("a body in {other}")),
    }
}

fn json(answer: &Answer) -> Result<Value, String> {
    serde_json::from_slice(&unpacked(answer)?).map_err(|error| format!("{error}: {}", shown(answer)))
}

/// Returns the bits of the vectors in the order of their `index`, or of their position if they have none.
fn vectors(body: &Value) -> Result<Vec<Vec<u32>>, String> {
    let items = body["data"].as_array().ok_or_else(|| "no data".to_owned())?;
    let mut indexed = Vec::new();
    for (position, item) in items.iter().enumerate() {
        let index = item["index"].as_u64().unwrap_or(position as u64);
        indexed.push((index, bits(&item["embedding"])?));
    }
    indexed.sort_by_key(|(index, _)| *index);
    Ok(indexed.into_iter().map(|(_, bits)| bits).collect())
}

#[expect(clippy::cast_possible_truncation, reason = "the decimal text of an f32 reads back to it through f64")]
fn bits(embedding: &Value) -> Result<Vec<u32>, String> {
    match embedding {
        Value::String(text) => {
            let bytes = base64_simd::STANDARD.decode_to_vec(text.as_bytes()).map_err(|_| "odd base64".to_owned())?;
            Ok(bytes.as_chunks::<4>().0.iter().map(|component| u32::from_le_bytes(*component)).collect())
        }
        Value::Array(numbers) => {
            let number = |number: &Value| number.as_f64().map(|number| (number as f32).to_bits());
            numbers.iter().map(number).collect::<Option<_>>().ok_or_else(|| "a component is no number".to_owned())
        }
        other => Err(format!("no vector: {other}")),
    }
}

fn without_data(body: &Value) -> Value {
    let mut body = body.clone();
    body["data"] = Value::Null;
    body
}

/// Returns the beginning of a body, for messages.
pub(crate) fn shown(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).chars().take(160).collect()
}
