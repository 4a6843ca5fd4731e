//! Walks over a JSON text by its structure. Nearly all of an answer is base64, which a JSON reader would look at byte by
//! byte for escapes; here only its end is searched for, and the decoder sees what is wrong with the rest.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::Unreadable;

/// A place in a JSON text. Nothing but JSON is walked over, and whatever else stands there is [`Unreadable::Shape`].
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Cursor<'a> {
    /// The beginning of `text`.
    pub(super) const fn new(text: &'a [u8]) -> Self {
        Self { rest: text }
    }

    /// Walks over an object. `member` is told each name and has to walk over its value.
    pub(super) fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, &str) -> Result<(), Unreadable>,
    ) -> Result<(), Unreadable> {
        self.list([b'{', b'}'], |cursor| {
            let Name(name) = cursor.value()?;
            cursor.expect(b':')?;
            member(cursor, &name)
        })
    }

    /// Walks over an array. `item` has to walk over each item.
    pub(super) fn array(&mut self, item: impl FnMut(&mut Self) -> Result<(), Unreadable>) -> Result<(), Unreadable> {
        self.list([b'[', b']'], item)
    }

    /// Walks over a value of a known shape.
    pub(super) fn value<T: Deserialize<'a>>(&mut self) -> Result<T, Unreadable> {
        let mut values = serde_json::Deserializer::from_slice(self.rest).into_iter();
        let value = values.next().and_then(Result::ok).ok_or(Unreadable::Shape)?;
        self.rest = &self.rest[values.byte_offset()..];
        Ok(value)
    }

    /// Walks over a value that means nothing.
    pub(super) fn skip(&mut self) -> Result<(), Unreadable> {
        self.value::<IgnoredAny>().map(drop)
    }

    /// Walks over a value and gives it as it stands there. What is in a string is for the caller to check.
    pub(super) fn raw(&mut self) -> Result<&'a [u8], Unreadable> {
        if let Some(length) = self.length_of_plain_string() {
            let (string, rest) = self.rest.split_at(length);
            self.rest = rest;
            return Ok(string);
        }
        self.value::<&RawValue>().map(|value| value.get().as_bytes())
    }

    /// The length of the string that stands here, quotes included, if the quote that ends it is easy to tell.
    fn length_of_plain_string(&mut self) -> Option<usize> {
        let after_quote = self.peek().and(self.rest.strip_prefix(b"\""))?;
        let length = memchr::memchr(b'"', after_quote)?;
        // A quote that is the first and has no backslash before it cannot be part of the string.
        let is_escaped = length > 0 && after_quote[length - 1] == b'\\';
        (!is_escaped).then_some(length + 2)
    }

    /// Nothing may follow.
    pub(super) fn end(&mut self) -> Result<(), Unreadable> {
        if self.peek().is_none() { Ok(()) } else { Err(Unreadable::Shape) }
    }

    fn list(
        &mut self,
        [open, close]: [u8; 2],
        mut item: impl FnMut(&mut Self) -> Result<(), Unreadable>,
    ) -> Result<(), Unreadable> {
        self.expect(open)?;
        if self.peek() == Some(close) {
            return self.expect(close);
        }
        loop {
            item(self)?;
            if self.peek() != Some(b',') {
                return self.expect(close);
            }
            self.expect(b',')?;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Unreadable> {
        if self.peek() == Some(byte) {
            self.rest = &self.rest[1..];
            return Ok(());
        }
        Err(Unreadable::Shape)
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.rest {
            self.rest = rest;
        }
        self.rest.first().copied()
    }
}
