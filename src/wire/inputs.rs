//! Reads `input`: one text, several texts, one token array or several.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, SeqAccess, Visitor};

use super::{Bypass, Input};

/// Maximum number of inputs in a request that is parsed. The cost of a request grows with its inputs.
pub const MAX_INPUTS: usize = 100_000;

/// A string that is borrowed from the body if it has no escapes.
pub(super) struct Name<'a>(pub(super) Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: de::Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field name")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Name<'de>, E> {
                // The JSON reader lends a string only if it has no escapes. An unescaped one is in its buffer and
                // must be copied.
                Ok(Name(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        json.deserialize_str(NameVisitor)
    }
}

/// Reads the value of `input`: one text, several texts, one token array or several. The flag in the result is true for
/// a single input outside of a list.
pub(super) struct InputsVisitor<'f> {
    pub(super) fault: &'f Cell<Option<Bypass>>,
}

impl InputsVisitor<'_> {
    /// Adds one more input, up to the limit. Inputs beyond it are not collected.
    fn add<'a, E: de::Error>(&self, inputs: &mut Vec<Input<'a>>, input: Input<'a>) -> Result<(), E> {
        if inputs.len() == MAX_INPUTS {
            // A JSON error carries only text, so the reason goes through the cell.
            self.fault.set(Some(Bypass::TooManyInputs));
            return Err(E::custom(Bypass::TooManyInputs.label()));
        }
        inputs.push(input);
        Ok(())
    }

    fn read_texts<'de, A: SeqAccess<'de>>(
        &self,
        first: Cow<'de, str>,
        mut list: A,
    ) -> Result<Vec<Input<'de>>, A::Error> {
        let mut inputs = vec![Input::Text(first)];
        while let Some(Name(text)) = list.next_element::<Name<'de>>()? {
            self.add(&mut inputs, Input::Text(text))?;
        }
        Ok(inputs)
    }

    fn read_token_lists<'de, A: SeqAccess<'de>>(
        &self,
        first: Vec<u32>,
        mut list: A,
    ) -> Result<Vec<Input<'de>>, A::Error> {
        let mut inputs = vec![Input::Tokens(first)];
        while let Some(ids) = list.next_element::<Vec<u32>>()? {
            self.add(&mut inputs, Input::Tokens(ids))?;
        }
        Ok(inputs)
    }
}

impl<'de> DeserializeSeed<'de> for InputsVisitor<'_> {
    type Value = (Vec<Input<'de>>, bool);

    fn deserialize<D: de::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for InputsVisitor<'_> {
    type Value = (Vec<Input<'de>>, bool);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a list of texts, tokens or a list of tokens")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok((vec![Input::Text(Cow::Borrowed(text))], true))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok((vec![Input::Text(Cow::Owned(text.to_owned()))], true))
    }

    /// Reads a list. The first element determines the type of the others.
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        match list.next_element::<Element<'de>>()? {
            None => Ok((Vec::new(), false)),
            Some(Element::Text(first)) => Ok((self.read_texts(first, list)?, false)),
            // A list of numbers is one input, as token array, and does not count as a list of inputs.
            Some(Element::Token(first)) => Ok((read_tokens(first, list)?, true)),
            Some(Element::Tokens(first)) => Ok((self.read_token_lists(first, list)?, false)),
        }
    }
}

fn read_tokens<'de, A: SeqAccess<'de>>(first: u32, mut list: A) -> Result<Vec<Input<'de>>, A::Error> {
    let mut ids = vec![first];
    while let Some(id) = list.next_element::<u32>()? {
        ids.push(id);
    }
    Ok(vec![Input::Tokens(ids)])
}

/// The first element of an `input` list.
enum Element<'a> {
    Text(Cow<'a, str>),
    Token(u32),
    Tokens(Vec<u32>),
}

impl<'de> Deserialize<'de> for Element<'de> {
    fn deserialize<D: de::Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_any(ElementVisitor)
    }
}

struct ElementVisitor;

impl<'de> Visitor<'de> for ElementVisitor {
    type Value = Element<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a token or a list of tokens")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Element<'de>, E> {
        Ok(Element::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Element<'de>, E> {
        Ok(Element::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E: de::Error>(self, id: u64) -> Result<Element<'de>, E> {
        // Negative numbers and fractions never get here and fail as a wrong type.
        u32::try_from(id).map(Element::Token).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Element<'de>, A::Error> {
        let mut ids = Vec::with_capacity(64);
        while let Some(id) = list.next_element::<u32>()? {
            ids.push(id);
        }
        Ok(Element::Tokens(ids))
    }
}
