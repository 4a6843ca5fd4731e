//! Reads an embeddings request. Either every part of it is understood, or the reason for a bypass is returned.
//!
//! An unknown field might change the vector, so guessing is not an option. Requests that are not fully understood are
//! forwarded byte for byte.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserializer as _;
use serde::de::{self, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::form::{RequestForm, WrittenEncoding};
use super::inputs::{InputsVisitor, Name};
use super::members::{read_member, syntax_fault};
use super::{Bypass, BypassCause, Encoding, Extra, Input, InputKind, Space};

/// Maximum number of members of a body that is parsed.
const MAX_MEMBERS: usize = 64;

/// Maximum length of the name of a further member, in bytes.
const MAX_NAME_BYTES: usize = 256;

/// Maximum length of the name of a model or a user, in bytes.
const MAX_NAME_VALUE_BYTES: usize = 4096;

/// Maximum number of components that a request may ask for. It bounds memory reservations and mocks; the vectors of all
/// known models are far smaller.
pub const MAX_DIMENSIONS: u32 = 1 << 16;

/// A request that is fully understood.
#[derive(Debug, PartialEq, Eq)]
pub struct EmbedRequest<'a> {
    /// Fields that shape the vectors.
    pub space: Space,
    /// The inputs, in order. The list is not empty, no input is empty, and all are of one kind.
    pub inputs: Vec<Input<'a>>,
    /// Encoding that the caller wants.
    pub encoding: Encoding,
    /// The caller's `user`. It does not shape vectors but is relevant for billing.
    pub user: Option<String>,
    /// Spelling of the request.
    pub form: RequestForm,
}

impl EmbedRequest<'_> {
    /// Returns the kind of the inputs.
    pub fn kind(&self) -> InputKind {
        self.inputs.first().map_or(InputKind::Text, Input::kind)
    }
}

/// Tells whether the request's path already names the model, as Azure's deployment paths do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathModel {
    /// The body must name it.
    No,
    /// The path names it; the body may.
    Yes,
}

/// Reads a request body. `extra_fields` are the further fields that may shape a vector and join its key.
pub fn read_request<'a>(
    body: &'a [u8],
    extra_fields: &BTreeSet<String>,
    path_model: PathModel,
) -> Result<EmbedRequest<'a>, BypassCause> {
    // Until the visitor is inside an object, every error means that the body is not an object.
    let (fault, member) = (Cell::new(Some(Bypass::NotJson)), Cell::new(None));
    let mut json = serde_json::Deserializer::from_slice(body);
    let fields = json
        .deserialize_map(FieldsVisitor { extra_fields, fault: &fault, member: &member })
        // Bytes after the object could change its meaning for another reader, so they are a fault.
        .and_then(|fields| json.end().map(|()| fields))
        .map_err(|error| {
            let reason = fault.get().unwrap_or_else(|| syntax_fault(&error));
            BypassCause::in_member(reason, member.take())
        })?;
    Ok(fields.check(path_model)?)
}

#[derive(Default)]
struct Fields<'a> {
    model: Option<String>,
    inputs: Option<Vec<Input<'a>>>,
    dimensions: Option<u32>,
    user: Option<String>,
    extras: BTreeMap<String, Extra>,
    form: RequestForm,
}

impl<'a> Fields<'a> {
    fn check(self, path_model: PathModel) -> Result<EmbedRequest<'a>, Bypass> {
        let inputs = self.inputs.ok_or(Bypass::NoInput)?;
        // A path with a deployment names the model itself.
        if self.model.is_none() && path_model == PathModel::No {
            return Err(Bypass::NoInput);
        }
        // The service decides how to answer an empty input, so the request passes through.
        if inputs.is_empty() || inputs.iter().any(Input::is_empty) {
            return Err(Bypass::EmptyInput);
        }
        let space = Space { model: self.model, dimensions: self.dimensions, extras: self.extras };
        Ok(EmbedRequest { space, inputs, encoding: self.form.encoding.meaning(), user: self.user, form: self.form })
    }
}

/// Visitor of the request object. It stores a fault in the cell, because a JSON error carries only text.
struct FieldsVisitor<'f> {
    extra_fields: &'f BTreeSet<String>,
    fault: &'f Cell<Option<Bypass>>,
    /// The member that contains the fault.
    member: &'f Cell<Option<String>>,
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
            "model" => fields.model = Some(self.bounded(map.next_value::<String>()?)?),
            "user" => {
                fields.user = map.next_value::<Option<String>>()?.map(|user| self.bounded(user)).transpose()?;
                // Not every compatible server takes null for an absent member, so the spelling is kept.
                fields.form.has_null_user = fields.user.is_none();
            }
            "encoding_format" => fields.form.encoding = self.read_encoding(map)?,
            "dimensions" => {
                fields.dimensions = self.read_dimensions(map)?;
                fields.form.has_null_dimensions = fields.dimensions.is_none();
            }
            extra => {
                let value = self.read_extra(extra, map)?;
                fields.extras.insert(extra.to_owned(), value);
            }
        }
        Ok(())
    }

    /// Returns a name that is short enough to be kept for as long as something is known of its space.
    fn bounded<E: de::Error>(&self, name: String) -> Result<String, E> {
        if name.len() > MAX_NAME_VALUE_BYTES { Err(self.fault(Bypass::TooLarge)) } else { Ok(name) }
    }

    fn read_encoding<'a, A: MapAccess<'a>>(&self, map: &mut A) -> Result<WrittenEncoding, A::Error> {
        match map.next_value::<Option<Cow<'a, str>>>()?.as_deref() {
            None => Ok(WrittenEncoding::Null),
            Some("float") => Ok(WrittenEncoding::Value(Encoding::Float)),
            Some("base64") => Ok(WrittenEncoding::Value(Encoding::Base64)),
            Some(_) => Err(self.fault(Bypass::WrongType)),
        }
    }

    /// Reads `dimensions`. Some clients write whole numbers with a fraction of zero.
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

    fn read_extra<'a, A: MapAccess<'a>>(&self, name: &str, map: &mut A) -> Result<Extra, A::Error> {
        let text = map.next_value::<&RawValue>()?.get();
        if name.len() > MAX_NAME_BYTES {
            return Err(self.fault(Bypass::UnknownField));
        }
        read_member(name, text, self.extra_fields.contains(name)).map_err(|reason| self.fault(reason))
    }
}

impl<'de> Visitor<'de> for FieldsVisitor<'_> {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an embeddings request")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        // The body is an object from here on, so a further error has another reason.
        self.fault.set(None);
        let mut fields = Fields::default();
        // The list is short because of `MAX_MEMBERS`, so a search through it is cheap.
        let mut seen = Vec::<Cow<'de, str>>::with_capacity(6);
        while let Some(Name(name)) = map.next_key::<Name<'de>>()? {
            // Readers differ in which of two equal members they use (RFC 8259, section 4).
            let read = if seen.contains(&name) {
                Err(self.fault(Bypass::DuplicateKey))
            } else if seen.len() == MAX_MEMBERS {
                Err(self.fault(Bypass::UnknownField))
            } else {
                self.read_field(&name, &mut fields, &mut map)
            };
            // The name of the member goes into the header of the bypass.
            read.inspect_err(|_| self.member.set(Some(name.to_string())))?;
            seen.push(name);
        }
        Ok(fields)
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
