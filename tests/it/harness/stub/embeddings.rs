//! Writes an embeddings answer with the faults that the script requests.

use std::fmt::Write as _;

use super::behaviour::Behaviour;
use super::dialect::Dialect;
use super::reply::Reply;
use super::request::EmbedCall;

/// An answer that can still be corrupted.
pub(crate) struct Draft {
    items: Vec<Item>,
    model: String,
    usage: Option<usize>,
    base64: bool,
    number: Number,
    index: bool,
    dialect: Option<Dialect>,
}

/// The type of a vector's components.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Number {
    Float32,
    /// Float64, only in base64.
    Float64,
    Int8,
}

#[derive(Clone)]
struct Item {
    index: usize,
    vector: Vec<f32>,
}

impl Draft {
    /// Returns the answer of the real service.
    pub(crate) fn new(call: &EmbedCall) -> Self {
        let item = |(index, input)| Item { index, vector: call.space.vector(input) };
        Self {
            items: call.inputs.iter().enumerate().map(item).collect(),
            model: answered_model(&call.space.model),
            usage: Some(call.tokens),
            base64: call.base64,
            number: if call.int8 { Number::Int8 } else { Number::Float32 },
            index: true,
            dialect: None,
        }
    }

    /// Corrupts the answer. Behaviours that do not concern embeddings answers change nothing.
    pub(crate) fn apply(&mut self, behaviour: &Behaviour) {
        match behaviour {
            Behaviour::All(several) => several.iter().for_each(|behaviour| self.apply(behaviour)),
            Behaviour::Reorder => self.items.reverse(),
            Behaviour::ModelName(name) => self.model.clone_from(name),
            Behaviour::NoUsage => self.usage = None,
            Behaviour::Dialect(dialect) => self.dialect = Some(*dialect),
            Behaviour::NoIndex => self.index = false,
            Behaviour::FloatsForBase64 => self.base64 = false,
            Behaviour::Float64Base64 => self.number = Number::Float64,
            Behaviour::MissingItem => drop(self.items.pop()),
            Behaviour::ExtraItem => self.add_item(),
            Behaviour::DuplicateIndex => self.repeat_index(),
            Behaviour::WrongDimension => self.shorten(),
            Behaviour::Nan => self.corrupt_first(|vector| vector[0] = f32::NAN),
            Behaviour::AllZero => self.corrupt_first(|vector| vector.fill(0.0)),
            _ => {}
        }
    }

    fn shorten(&mut self) {
        for item in &mut self.items {
            item.vector.pop();
        }
    }

    fn add_item(&mut self) {
        let mut item = self.items[0].clone();
        item.index = self.items.len();
        self.items.push(item);
    }

    fn repeat_index(&mut self) {
        let first = self.items[0].index;
        if let Some(last) = self.items.last_mut() {
            last.index = first;
        }
    }

    fn corrupt_first(&mut self, spoil: impl Fn(&mut [f32])) {
        spoil(&mut self.items[0].vector);
    }

    /// Replaces the answer by that of another model.
    pub(crate) fn answer_as(&mut self, model: &str, call: &EmbedCall) {
        let other = call.space.of_model(model);
        self.items =
            call.inputs.iter().enumerate().map(|(index, input)| Item { index, vector: other.vector(input) }).collect();
        model.clone_into(&mut self.model);
    }

    pub(crate) fn model(&self) -> &str {
        &self.model
    }

    /// Serialises the answer with the key order and number format of the service.
    pub(crate) fn render(&self) -> Reply {
        let mut body = String::from("{");
        if let Some(id) = self.dialect.and_then(Dialect::id) {
            let _ = write!(body, r#""id":"{id}","#);
        }
        body.push_str(r#""object":"list","data":["#);
        for (at, item) in self.items.iter().enumerate() {
            body.push_str(if at == 0 { "" } else { "," });
            body.push_str(r#"{"object":"embedding","#);
            if self.index {
                let _ = write!(body, r#""index":{},"#, item.index);
            }
            let _ = write!(body, r#""embedding":{}}}"#, self.embedding(&item.vector));
        }
        let _ = write!(body, r#"],"model":{}"#, serde_json::Value::from(self.model.as_str()));
        if let Some(tokens) = self.usage {
            let prompt = match self.dialect {
                Some(Dialect::Voyage) => String::new(),
                _ => format!(r#""prompt_tokens":{tokens},"#),
            };
            let _ = write!(body, r#","usage":{{{prompt}"total_tokens":{tokens}}}"#);
        }
        body.push('}');
        Reply::json(body)
    }

    fn embedding(&self, vector: &[f32]) -> String {
        if !self.base64 {
            return if self.number == Number::Int8 { format!("{:?}", int8(vector)) } else { floats(vector) };
        }
        let bytes: Vec<u8> = match self.number {
            Number::Float32 => vector.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Number::Float64 => vector.iter().flat_map(|value| f64::from(*value).to_le_bytes()).collect(),
            Number::Int8 => int8(vector).into_iter().flat_map(i8::to_le_bytes).collect(),
        };
        format!("\"{}\"", base64_simd::STANDARD.encode_to_string(bytes))
    }
}

/// Writes a vector as a list of floats. JSON has no NaN, so NaN becomes a number beyond the range of floats.
fn floats(vector: &[f32]) -> String {
    let text = |value: &f32| if value.is_nan() { "1e999".to_owned() } else { shortest(*value) };
    format!("[{}]", vector.iter().map(text).collect::<Vec<_>>().join(","))
}

#[expect(clippy::cast_possible_truncation, reason = "the components of a unit vector are between -1 and 1")]
fn int8(vector: &[f32]) -> Vec<i8> {
    vector.iter().map(|value| (value * 127.0).round() as i8).collect()
}

fn shortest(value: f32) -> String {
    serde_json::to_string(&value).expect("a finite number is JSON")
}

/// Returns the model name in the answer: the service replaces a model family by its exact version.
fn answered_model(model: &str) -> String {
    match model {
        "text-embedding-ada-002" => "text-embedding-ada-002-v2".to_owned(),
        other => other.to_owned(),
    }
}
