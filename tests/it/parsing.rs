//! Mutated requests and answers: parsing never panics, never guesses, and serialising the result preserves its meaning.

use std::collections::BTreeSet;

use serde_json::Value;
use vecho::vector::Vector;
use vecho::vector::packed::Packed;
use vecho::wire::{
    Base64, EmbedRequest, Encoding, Expected, Input, PathModel, ReadAnswer, Rendering, read_answer, read_request,
    write_request,
};

use crate::randomised::dice::Dice;

const ROUNDS: usize = 100_000;

const REQUESTS: &[&str] = &[
    r#"{"input":"a text","model":"m"}"#,
    r#"{"model":"text-embedding-3-small","input":["one","two\n\"three\" \\ \u00e9\ud83e\udd80"],"encoding_format":"base64","dimensions":4.0}"#,
    r#"{"input":[1,2,3,4294967295],"model":"m","user":"u","encoding_format":null,"dimensions":null}"#,
    r#"{ "input" : [ [1, 2] , [3] ] , "model" : "m" , "dimensions" : 256 , "input_type" : "query" }"#,
    r#"{"input":["\u2028\u0000","日本語"],"model":"m","task":null,"truncate":true,"encoding_format":"float"}"#,
];

const ANSWERS: &[&str] = &[
    r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.1,-2.5e-10,3]}],"model":"m","usage":{"prompt_tokens":8,"total_tokens":8}}"#,
    r#"{"object":"list","data":[{"index":1,"embedding":[1.0, -0.0]},{"index":0,"embedding":[1e-45,3.4028235e38]}],"model":"m"}"#,
    r#"{"data":[{"object":"embedding","index":0,"embedding":"AACAPwAAAEA="},{"index":1,"embedding":"AAAAwM3MzD0="}],"usage":null}"#,
    r#"{"data":[{"embedding":[1],"index":2},{"embedding":[2],"index":0},{"embedding":[3],"index":1}],"model":"","usage":{}}"#,
];

/// Tokens with a meaning in JSON or in this format.
const PIECES: &[&str] = &[
    "\"",
    "\\",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "null",
    "true",
    "0",
    "1",
    "-1",
    "1e999",
    "1e-46",
    "0.0",
    "4294967296",
    "18446744073709551616",
    "NaN",
    "\\ud800",
    "\\udc00",
    "\\u0000",
    "\u{feff}",
    " ",
    "\n",
    "\"index\":0",
    "\"index\":1",
    "\"input\":\"x\"",
    "\"model\":\"x\"",
    "\"dimensions\":1.5",
    "\"input_type\":[]",
    "\"unknown\":1",
    "[1]",
    "[[1]]",
    "AAAA",
    "=",
    "\u{fffd}",
];

/// Returns a body with up to six mutations.
fn mutated(dice: &mut Dice, corpus: &[&str]) -> Vec<u8> {
    let mut body = dice.pick(corpus).as_bytes().to_vec();
    for _ in 0..dice.below(7) {
        let at = dice.below(body.len() + 1);
        let end = (at + dice.below(8)).min(body.len());
        match dice.below(8) {
            0 if at < body.len() => body[at] ^= 1 << dice.below(8),
            1 if at < body.len() => body[at] = b"0123456789"[dice.below(10)],
            2 => drop(body.drain(at..end)),
            3 => drop(body.splice(at..at, body[at..end].to_vec())),
            4 => drop(body.splice(at..end, dice.pick(PIECES).bytes())),
            5 => body.truncate(at.max(1)),
            6 => {
                let other = dice.pick(corpus).as_bytes();
                body.splice(at.., other[dice.below(other.len())..].to_vec());
            }
            _ => drop(body.splice(at..at, dice.pick(PIECES).bytes())),
        }
    }
    body
}

fn extra_fields() -> BTreeSet<String> {
    ["input_type", "task", "truncate"].map(str::to_owned).into()
}

/// Returns true if the parsed request means the same as its body parsed by a general JSON library.
fn means(request: &EmbedRequest<'_>, body: &Value) -> bool {
    let input = |input: &Input<'_>| match input {
        Input::Text(text) => Value::from(text.as_ref()),
        Input::Tokens(ids) => Value::from(ids.clone()),
    };
    let inputs: Vec<Value> = request.inputs.iter().map(input).collect();
    let same_inputs = Value::from(inputs.clone()) == body["input"] || (inputs.len() == 1 && inputs[0] == body["input"]);
    let format = body["encoding_format"].as_str().unwrap_or("float");
    same_inputs
        && request.space.model.as_deref() == body["model"].as_str()
        && request.space.dimensions.map(f64::from) == body["dimensions"].as_f64()
        && request.user.as_deref() == body["user"].as_str()
        && request.encoding.name() == format
        && request
            .space
            .extras
            .iter()
            .all(|(name, value)| serde_json::from_str(value.written()).is_ok_and(|value: Value| value == body[name]))
        && body.as_object().expect("it is an object").len() <= 5 + request.space.extras.len()
}

#[test]
fn a_mutated_request_is_refused_or_read_correctly() {
    let (mut dice, extra_fields, mut read) = (Dice::new(1), extra_fields(), 0);
    for _ in 0..ROUNDS {
        let body = mutated(&mut dice, REQUESTS);
        let Ok(request) = read_request(&body, &extra_fields, PathModel::Yes) else { continue };
        read += 1;
        let shown = String::from_utf8_lossy(&body);
        let general: Value = serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{error}: {shown}"));
        assert!(means(&request, &general), "{request:?} from {shown}");
        assert!(!request.inputs.is_empty() && !request.inputs.iter().any(Input::is_empty), "{shown}");
        let inputs: Vec<&Input<'_>> = request.inputs.iter().collect();
        let written = write_request(&request.space, &inputs, request.form, request.user.as_deref());
        let again = read_request(&written, &extra_fields, PathModel::Yes);
        assert_eq!(again.as_ref(), Ok(&request), "{shown}");
    }
    assert!((ROUNDS / 10..ROUNDS / 2).contains(&read), "{read} of {ROUNDS} could be read");
}

fn rewritten(answer: &ReadAnswer, encoding: Encoding) -> ReadAnswer {
    let count = u32::try_from(answer.vectors.len()).expect("there are a few");
    let rendering = Rendering {
        vectors: answer.vectors.iter().cloned().map(Packed::from).collect(),
        slots: (0..count).collect(),
        encoding,
        model: answer.model.clone().unwrap_or_default(),
        prompt_tokens: answer.prompt_tokens.unwrap_or_default(),
        members: Vec::new(),
        mocks: Vec::new(),
    };
    let expected = Expected {
        inputs: answer.vectors.len(),
        asked: None,
        known: answer.vectors.first().map(Vector::dimension),
        base64: Base64::Trusted,
    };
    read_answer(&rendering.to_bytes(), &expected).expect("what was written can be read")
}

#[test]
fn a_mutated_answer_is_refused_or_kept_bit_for_bit() {
    let (mut dice, mut read) = (Dice::new(2), 0);
    for _ in 0..ROUNDS {
        let body = mutated(&mut dice, ANSWERS);
        // Usually matches the number of items. Otherwise almost no answer would be accepted.
        let items = String::from_utf8_lossy(&body).matches("\"embedding\":").count();
        let inputs = if dice.percent(80) { items.max(1) } else { 1 + dice.below(3) };
        let dimension = Some(1 + dice.below(3)).filter(|_| dice.percent(30));
        let Ok(answer) =
            read_answer(&body, &Expected { inputs, asked: None, known: dimension, base64: Base64::Trusted })
        else {
            continue;
        };
        read += 1;
        let shown = String::from_utf8_lossy(&body);
        assert_eq!(answer.vectors.len(), inputs, "{shown}");
        let dimensions: BTreeSet<usize> = answer.vectors.iter().map(Vector::dimension).collect();
        assert!(dimensions.len() == 1 && dimension.is_none_or(|known| dimensions.contains(&known)), "{shown}");
        let usable = |vector: &Vector| vector.components().all(f32::is_finite) && vector.components().any(|c| c != 0.0);
        assert!(answer.vectors.iter().all(usable), "{shown}");
        for encoding in [Encoding::Float, Encoding::Base64] {
            let again = rewritten(&answer, encoding);
            assert_eq!((&again.vectors, &again.model), (&answer.vectors, &answer.model), "{shown}");
        }
    }
    assert!((ROUNDS / 20..ROUNDS / 2).contains(&read), "{read} of {ROUNDS} could be read");
}
