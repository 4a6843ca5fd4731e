//! Bodies of embeddings requests: an accepted body is parsed completely.

use std::collections::BTreeSet;

use serde_json::Value;
use vecho::wire::{EmbedRequest, Input, MAX_DIMENSIONS, MAX_INPUTS, PathModel, read_request, write_request};

/// Additional fields, as listed in a configuration.
const EXTRA_FIELDS: [&str; 5] = ["input_type", "late_chunking", "provider", "task", "truncate"];

/// Checks one body.
pub(crate) fn check(body: &[u8]) {
    let extra_fields: BTreeSet<String> = EXTRA_FIELDS.map(str::to_owned).into();
    let read = |path_model| read_request(body, &extra_fields, path_model);
    let (in_path, in_body) = (read(PathModel::Yes), read(PathModel::No));
    if in_body.is_ok() {
        assert_eq!(in_path, in_body, "a path that names the model changes nothing about a body that does, too");
    }
    let Ok(request) = in_path else { return };
    bounded(&request);
    same_as_other_reader(&request, body);
    reads_back(&request, &extra_fields);
}

fn bounded(request: &EmbedRequest<'_>) {
    assert!((1..=MAX_INPUTS).contains(&request.inputs.len()));
    assert!(request.inputs.iter().all(|input| !input.is_empty() && input.kind() == request.kind()));
    assert!(request.space.dimensions.is_none_or(|dimensions| (1..=MAX_DIMENSIONS).contains(&dimensions)));
}

/// Compares the result with a general JSON parser. Bodies that exceed its depth limit are skipped.
fn same_as_other_reader(request: &EmbedRequest<'_>, body: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return };
    assert_eq!(request.space.model.as_deref(), value["model"].as_str());
    let list = match &value["input"] {
        Value::Array(list) if !list[0].is_number() => list.clone(),
        single => vec![single.clone()],
    };
    let inputs: Vec<Value> = request.inputs.iter().map(as_value).collect();
    assert_eq!(inputs, list);
}

fn as_value(input: &Input<'_>) -> Value {
    match input {
        Input::Text(text) => Value::from(text.as_ref()),
        Input::Tokens(ids) => Value::from(ids.clone()),
    }
}

fn reads_back(request: &EmbedRequest<'_>, extra_fields: &BTreeSet<String>) {
    let inputs: Vec<&Input<'_>> = request.inputs.iter().collect();
    let written = write_request(&request.space, &inputs, request.form, request.user.as_deref());
    assert_eq!(read_request(&written, extra_fields, PathModel::Yes).as_ref(), Ok(request));
}
