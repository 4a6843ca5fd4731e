//! Parses the structure of a JSON text. Most of an answer is base64, which a JSON reader would scan byte by byte for
//! escapes. This cursor only searches for the end of a string; the base64 decoder detects faults in its content.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::AnswerFault;

/// First and last byte of an object.
pub(super) const OBJECT: [u8; 2] = [b'{', b'}'];
/// First and last byte of an array.
pub(super) const ARRAY: [u8; 2] = [b'[', b']'];

/// Position in a JSON text. Anything that is not valid JSON gives [`AnswerFault::Shape`].
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

#[derive(Deserialize)]
struct MemberName<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Cursor<'a> {
    /// Starts at the beginning of `text`.
    pub(super) const fn new(text: &'a [u8]) -> Self {
        Self { rest: text }
    }

    /// Reads an object. `member` gets each name and must read its value.
    pub(super) fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, &str) -> Result<(), AnswerFault>,
    ) -> Result<(), AnswerFault> {
        let mut has_member = self.begin(OBJECT)?;
        while has_member {
            let name = self.name()?;
            member(self, &name)?;
            has_member = self.go_on(OBJECT)?;
        }
        Ok(())
    }

    /// Reads a value of a known type.
    pub(super) fn value<T: Deserialize<'a>>(&mut self) -> Result<T, AnswerFault> {
        // The iterator tells the offset after one value. A plain deserializer demands that the text ends there.
        let mut values = serde_json::Deserializer::from_slice(self.rest).into_iter();
        let value = values.next().and_then(Result::ok).ok_or(AnswerFault::Shape)?;
        self.rest = &self.rest[values.byte_offset()..];
        Ok(value)
    }

    /// Skips a value.
    pub(super) fn skip(&mut self) -> Result<(), AnswerFault> {
        self.value::<IgnoredAny>().map(drop)
    }

    /// Reads a value and returns its text. The content of a string is not checked.
    pub(super) fn raw(&mut self) -> Result<&'a [u8], AnswerFault> {
        if let Some(length) = self.length_of_plain_string() {
            let (string, rest) = self.rest.split_at(length);
            self.rest = rest;
            return Ok(string);
        }
        self.value::<&RawValue>().map(|value| value.get().as_bytes())
    }

    /// Returns the length of the string at this position, including quotes, if its closing quote is easy to find.
    fn length_of_plain_string(&mut self) -> Option<usize> {
        let after_quote = self.peek().and(self.rest.strip_prefix(b"\""))?;
        let length = memchr::memchr(b'"', after_quote)?;
        // The first quote without a backslash before it ends the string.
        let is_escaped = length > 0 && after_quote[length - 1] == b'\\';
        (!is_escaped).then_some(length + 2)
    }

    /// Fails unless the text ends here.
    pub(super) fn end(&mut self) -> Result<(), AnswerFault> {
        if self.peek().is_none() { Ok(()) } else { Err(AnswerFault::Shape) }
    }

    /// Begins a list, whose first byte and last byte are given. Returns true if it has an item, which must be read next.
    pub(super) fn begin(&mut self, [open, close]: [u8; 2]) -> Result<bool, AnswerFault> {
        self.expect(open)?;
        let has_item = self.peek() != Some(close);
        if !has_item {
            self.expect(close)?;
        }
        Ok(has_item)
    }

    /// Continues a list after an item. Returns true if another item follows, which must be read next.
    pub(super) fn go_on(&mut self, [_, close]: [u8; 2]) -> Result<bool, AnswerFault> {
        let has_item = self.peek() == Some(b',');
        self.expect(if has_item { b',' } else { close })?;
        Ok(has_item)
    }

    /// Reads the name of a member and the colon behind it.
    pub(super) fn name(&mut self) -> Result<Cow<'a, str>, AnswerFault> {
        // The name is unescaped, so an escaped spelling of `data` is recognized.
        let MemberName(name) = self.value()?;
        self.expect(b':')?;
        Ok(name)
    }

    fn expect(&mut self, byte: u8) -> Result<(), AnswerFault> {
        if self.peek() == Some(byte) {
            self.rest = &self.rest[1..];
            return Ok(());
        }
        Err(AnswerFault::Shape)
    }

    /// Returns the next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.rest {
            self.rest = rest;
        }
        self.rest.first().copied()
    }
}
