//! Writes the answer of a dialect.

use std::fmt::Write as _;

use bytes::Bytes;
use serde_json::{Value, json};

use super::received::Received;
use crate::harness::stub::{Input, Space, tokens};

/// Members that do not shape a vector, or that [`Draft::new`] handles explicitly.
const NEUTRAL: [&str; 8] =
    ["model", "input", "encoding_format", "user", "dimensions", "output_dimension", "drop_params", "messages"];

/// The items that have an `index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Indices {
    All,
    /// All but the first, because the server's serialiser omits the default value zero.
    NotZero,
    /// No item.
    Absent,
}

/// An answer before it is serialised.
pub(crate) struct Draft {
    pub(crate) space: Space,
    pub(crate) model: String,
    pub(crate) base64: bool,
    /// Base64 holds f64.
    pub(crate) wide: bool,
    pub(crate) indices: Indices,
    pub(crate) reversed: bool,
    pub(crate) usage: Option<Value>,
    /// Further members of the envelope.
    pub(crate) members: Vec<(&'static str, Value)>,
    pub(crate) headers: Vec<(&'static str, &'static str)>,
    inputs: Vec<Input>,
}

impl Draft {
    /// Returns the answer of a server that accepts every member and lets it shape the vector.
    pub(crate) fn new(received: &Received) -> Self {
        let model = received.model().unwrap_or("default").to_owned();
        let dimensions = received.member("dimensions").or_else(|| received.member("output_dimension"));
        let dimensions = dimensions.and_then(Value::as_f64).and_then(|number| number.to_string().parse().ok());
        let count: usize = received.inputs.iter().map(count).sum();
        Self {
            space: Space { model: model.clone(), dimensions, extras: extras(received) },
            model,
            base64: received.text("encoding_format") == Some("base64"),
            wide: false,
            indices: Indices::All,
            reversed: false,
            usage: Some(json!({"prompt_tokens": count, "total_tokens": count})),
            members: Vec::new(),
            headers: vec![("x-request-id", "req-of-the-server")],
            inputs: received.inputs.clone(),
        }
    }

    /// Returns the vectors in the order of the inputs.
    pub(crate) fn vectors(&self) -> Vec<Vec<f32>> {
        self.inputs.iter().map(|input| self.space.vector(input)).collect()
    }

    pub(crate) fn write(&self) -> Bytes {
        let mut items: Vec<String> =
            self.vectors().iter().enumerate().map(|(index, vector)| self.item(index, vector)).collect();
        if self.reversed {
            items.reverse();
        }
        let mut body = format!(r#"{{"object":"list","data":[{}],"model":{}"#, items.join(","), json!(self.model));
        for (name, value) in &self.members {
            let _ = write!(body, r#","{name}":{value}"#);
        }
        if let Some(usage) = &self.usage {
            let _ = write!(body, r#","usage":{usage}"#);
        }
        body.push('}');
        body.into()
    }

    fn item(&self, index: usize, vector: &[f32]) -> String {
        let has_index = match self.indices {
            Indices::All => true,
            Indices::NotZero => index > 0,
            Indices::Absent => false,
        };
        let number = if has_index { format!(r#""index":{index},"#) } else { String::new() };
        format!(r#"{{"object":"embedding",{number}"embedding":{}}}"#, self.embedding(vector))
    }

    fn embedding(&self, vector: &[f32]) -> String {
        if !self.base64 {
            return json!(vector).to_string();
        }
        let bytes: Vec<u8> = if self.wide {
            vector.iter().flat_map(|component| f64::from(*component).to_le_bytes()).collect()
        } else {
            vector.iter().flat_map(|component| component.to_le_bytes()).collect()
        };
        format!(r#""{}""#, base64_simd::STANDARD.encode_to_string(&bytes))
    }
}

/// Returns the token count of one input: OpenAI's count plus two, as on servers that add special tokens.
pub(crate) fn count(input: &Input) -> usize {
    tokens(input.clone()) + 2
}

/// Returns the members that shape the vector, in the order of their names, with their values.
fn extras(received: &Received) -> String {
    let mut extras = String::new();
    let shaping = received.members.iter().filter(|(name, value)| !NEUTRAL.contains(&name.as_str()) && !value.is_null());
    for (name, value) in shaping {
        let _ = writeln!(extras, "{name}={value}");
    }
    if received.member("late_chunking") == Some(&Value::Bool(true)) {
        let _ = writeln!(extras, "beside {:?}", received.inputs);
    }
    extras
}
