//! Writes an embeddings request for the upstream.

use bytes::Bytes;

use super::{Input, RequestForm, Space, WrittenEncoding};

/// Writes the body of an upstream call for `inputs`, all of one kind. Members are spelled as `form` says; several
/// inputs are always a list.
pub fn write_request(space: &Space, inputs: &[&Input<'_>], form: RequestForm, user: Option<&str>) -> Bytes {
    // A text gets a third more than its length, for quotes and escapes. Token ids may need more, and the buffer grows.
    let mut body = Vec::with_capacity(128 + inputs.iter().map(|input| input.estimated_tokens() * 4).sum::<usize>());
    body.extend_from_slice(b"{\"input\":");
    match inputs {
        // Only a call with one input can keep the form of a single value. Merged requests need a list.
        [input] if form.is_single => write_input(&mut body, input),
        _ => write_inputs(&mut body, inputs),
    }
    if let Some(model) = &space.model {
        write_field(&mut body, "model", model);
    }
    match form.encoding {
        WrittenEncoding::Absent => {}
        WrittenEncoding::Null => write_field(&mut body, "encoding_format", &()),
        WrittenEncoding::Value(encoding) => write_field(&mut body, "encoding_format", encoding.name()),
    }
    match space.dimensions {
        Some(dimensions) => write_field(&mut body, "dimensions", &dimensions),
        None if form.has_null_dimensions => write_field(&mut body, "dimensions", &()),
        None => {}
    }
    match user {
        Some(user) => write_field(&mut body, "user", user),
        None if form.has_null_user => write_field(&mut body, "user", &()),
        None => {}
    }
    for (name, value) in &space.extras {
        write_name(&mut body, name);
        // The caller's own text goes upstream. The canonical one is only for the key.
        body.extend_from_slice(value.written().as_bytes());
    }
    body.push(b'}');
    Bytes::from(body)
}

fn write_inputs(body: &mut Vec<u8>, inputs: &[&Input<'_>]) {
    body.push(b'[');
    for (place, input) in inputs.iter().enumerate() {
        if place > 0 {
            body.push(b',');
        }
        write_input(body, input);
    }
    body.push(b']');
}

fn write_input(body: &mut Vec<u8>, input: &Input<'_>) {
    match input {
        Input::Text(text) => write_text(body, text),
        Input::Tokens(ids) => write_json(body, ids),
    }
}

/// Writes a text. Most texts need no escapes, and checking that takes a tenth of the time of searching for each place.
fn write_text(body: &mut Vec<u8>, text: &str) {
    let needs_escape = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
    // The loop has no early exit, which lets the compiler vectorise it.
    if text.bytes().fold(false, |found, byte| found | needs_escape(byte)) {
        return write_json(body, text);
    }
    body.push(b'"');
    body.extend_from_slice(text.as_bytes());
    body.push(b'"');
}

fn write_name(body: &mut Vec<u8>, name: &str) {
    body.push(b',');
    write_json(body, name);
    body.push(b':');
}

fn write_field<T: serde::Serialize + ?Sized>(body: &mut Vec<u8>, name: &str, value: &T) {
    write_name(body, name);
    write_json(body, value);
}

fn write_json<T: serde::Serialize + ?Sized>(body: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(body, value).expect("strings and numbers must serialize into memory");
}
