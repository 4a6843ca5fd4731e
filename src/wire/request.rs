//! Reading an embeddings request: either every part of it is understood, or it is said why not.
//!
//! A field that is not known might change the vector, so guessing is not an option. What is not understood is forwarded
//! byte for byte.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserializer as _;
use serde::de::{self, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::form::{RequestForm, WrittenEncoding};
use super::inputs::{InputsVisitor, Name};
use super::{Encoding, Input, InputKind, Space};

/// Most components a vector may be asked to have. It sizes what is made here, and no model comes near it.
pub const MAX_DIMENSIONS: u32 = 1 << 16;

/// A request that is understood whole.
#[derive(Debug, PartialEq, Eq)]
pub struct EmbedRequest<'a> {
    /// What shapes the vectors.
    pub space: Space,
    /// What is to be embedded, in order; never empty, no input empty, all of one kind.
    pub inputs: Vec<Input<'a>>,
    /// The form the caller wants.
    pub encoding: Encoding,
    /// The caller's `user`; it shapes no vector but belongs to the bill.
    pub user: Option<String>,
    /// How the caller wrote the request.
    pub form: RequestForm,
}

impl EmbedRequest<'_> {
    /// Texts or tokens.
    pub fn kind(&self) -> InputKind {
        self.inputs.first().map_or(InputKind::Text, Input::kind)
    }
}

/// Why a request is passed through uncached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bypass {
    /// The body is not one JSON object.
    NotJson,
    /// A text holds half of a surrogate pair, which no UTF-8 string can.
    LoneSurrogate,
    /// A field stands twice.
    DuplicateKey,
    /// A field that is not known to leave the vector alone.
    UnknownField,
    /// A known field with a value that has no known meaning.
    WrongType,
    /// No `input`, or no `model` where the path names none.
    NoInput,
    /// An empty list, text or token array: the service decides.
    EmptyInput,
    /// More than [`MAX_INPUTS`] inputs.
    TooManyInputs,
    /// The content type is not JSON.
    ContentType,
    /// The body is compressed.
    ContentEncoding,
    /// The upstream's answer to it cannot be read.
    UnreadableAnswer,
    /// The answer's model changed several times while it was put together.
    UnsteadyModel,
}

impl Bypass {
    /// The word for headers and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotJson => "not_json",
            Self::LoneSurrogate => "lone_surrogate",
            Self::DuplicateKey => "duplicate_key",
            Self::UnknownField => "unknown_field",
            Self::WrongType => "wrong_type",
            Self::NoInput => "no_input",
            Self::EmptyInput => "empty_input",
            Self::TooManyInputs => "too_many_inputs",
            Self::ContentType => "content_type",
            Self::ContentEncoding => "content_encoding",
            Self::UnreadableAnswer => "unreadable_answer",
            Self::UnsteadyModel => "unsteady_model",
        }
    }
}

/// Whether the request's path already names the model, as Azure's deployment paths do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathModel {
    /// The body has to name it.
    No,
    /// The path does; the body may.
    Yes,
}

/// Reads a request body. `extra_fields` are the further fields that may shape a vector and join its key.
pub fn read_request<'a>(
    body: &'a [u8],
    extra_fields: &BTreeSet<String>,
    path_model: PathModel,
) -> Result<EmbedRequest<'a>, Bypass> {
    // Until the visitor is inside an object, whatever goes wrong means that there is none.
    let fault = Cell::new(Some(Bypass::NotJson));
    let mut json = serde_json::Deserializer::from_slice(body);
    let fields = json
        .deserialize_map(FieldsVisitor { extra_fields, fault: &fault })
        .and_then(|fields| json.end().map(|()| fields))
        .map_err(|error| fault.get().unwrap_or_else(|| syntax_fault(&error)))?;
    fields.check(path_model)
}

/// A JSON error that no visitor explained.
fn syntax_fault(error: &serde_json::Error) -> Bypass {
    let text = error.to_string();
    let surrogate = text.contains("surrogate") || text.contains("unexpected end of hex escape");
    match error.classify() {
        serde_json::error::Category::Data => Bypass::WrongType,
        _ if surrogate => Bypass::LoneSurrogate,
        _ => Bypass::NotJson,
    }
}

#[derive(Default)]
struct Fields<'a> {
    model: Option<String>,
    inputs: Option<Vec<Input<'a>>>,
    dimensions: Option<u32>,
    user: Option<String>,
    extras: BTreeMap<String, String>,
    form: RequestForm,
}

impl<'a> Fields<'a> {
    fn check(self, path_model: PathModel) -> Result<EmbedRequest<'a>, Bypass> {
        let inputs = self.inputs.ok_or(Bypass::NoInput)?;
        if self.model.is_none() && path_model == PathModel::No {
            return Err(Bypass::NoInput);
        }
        if inputs.is_empty() || inputs.iter().any(Input::is_empty) {
            return Err(Bypass::EmptyInput);
        }
        let space = Space { model: self.model, dimensions: self.dimensions, extras: self.extras };
        Ok(EmbedRequest { space, inputs, encoding: self.form.encoding.meaning(), user: self.user, form: self.form })
    }
}

/// Walks the request object. A fault is left in the cell, since a JSON error carries only text.
struct FieldsVisitor<'f> {
    extra_fields: &'f BTreeSet<String>,
    fault: &'f Cell<Option<Bypass>>,
}

impl FieldsVisitor<'_> {
    fn fault<E: de::Error>(&self, fault: Bypass) -> E {
        self.fault.set(Some(fault));
        E::custom(fault.label())
    }

    fn read_field<'a, A: MapAccess<'a>>(
        &self,
        name: &str,
        fields: &mut Fields<'a>,
        map: &mut A,
    ) -> Result<(), A::Error> {
        match name {
            "input" => {
                let (inputs, is_single) = map.next_value_seed(InputsVisitor { fault: self.fault })?;
                (fields.inputs, fields.form.is_single) = (Some(inputs), is_single);
            }
            "model" => fields.model = Some(map.next_value::<String>()?),
            "user" => {
                fields.user = map.next_value::<Option<String>>()?;
                fields.form.has_null_user = fields.user.is_none();
            }
            "encoding_format" => fields.form.encoding = self.read_encoding(map)?,
            "dimensions" => {
                fields.dimensions = self.read_dimensions(map)?;
                fields.form.has_null_dimensions = fields.dimensions.is_none();
            }
            extra if self.extra_fields.contains(extra) => {
                let canonical = self.read_extra(map)?;
                fields.extras.insert(extra.to_owned(), canonical);
            }
            _ => return Err(self.fault(Bypass::UnknownField)),
        }
        Ok(())
    }

    fn read_encoding<'a, A: MapAccess<'a>>(&self, map: &mut A) -> Result<WrittenEncoding, A::Error> {
        match map.next_value::<Option<Cow<'a, str>>>()?.as_deref() {
            None => Ok(WrittenEncoding::Null),
            Some("float") => Ok(WrittenEncoding::Value(Encoding::Float)),
            Some("base64") => Ok(WrittenEncoding::Value(Encoding::Base64)),
            Some(_) => Err(self.fault(Bypass::WrongType)),
        }
    }

    /// Some clients print whole numbers with a fraction of zero.
    fn read_dimensions<'a, A: MapAccess<'a>>(&self, map: &mut A) -> Result<Option<u32>, A::Error> {
        let Some(number) = map.next_value::<Option<f64>>()? else {
            return Ok(None);
        };
        let whole = (1.0..=f64::from(MAX_DIMENSIONS)).contains(&number) && number.fract() == 0.0;
        if !whole {
            return Err(self.fault(Bypass::WrongType));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked to be a small whole number above"
        )]
        Ok(Some(number as u32))
    }

    /// Only scalars: a list may hold one value per input, and then a vector's meaning would hang on its place.
    fn read_extra<'a, A: MapAccess<'a>>(&self, map: &mut A) -> Result<String, A::Error> {
        let text = map.next_value::<&RawValue>()?.get();
        // Told by its first byte: read into a value, an object of the JSON library's own would pass for what is in it.
        if text.starts_with(['{', '[']) {
            return Err(self.fault(Bypass::WrongType));
        }
        let value: Value = serde_json::from_str(text).map_err(|error| self.fault(syntax_fault(&error)))?;
        match &value {
            Value::Null | Value::Bool(_) | Value::String(_) => Ok(value.to_string()),
            Value::Number(number) if !number.is_f64() => Ok(value.to_string()),
            _ => Err(self.fault(Bypass::WrongType)),
        }
    }
}

impl<'de> Visitor<'de> for FieldsVisitor<'_> {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an embeddings request")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        self.fault.set(None);
        let mut fields = Fields::default();
        let mut seen = Vec::<Cow<'de, str>>::with_capacity(6);
        while let Some(Name(name)) = map.next_key::<Name<'de>>()? {
            if seen.contains(&name) {
                return Err(self.fault(Bypass::DuplicateKey));
            }
            self.read_field(&name, &mut fields, &mut map)?;
            seen.push(name);
        }
        Ok(fields)
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
