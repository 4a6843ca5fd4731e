//! Reads the input of one line.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use serde_json::value::RawValue;

use crate::process::lines::Line;
use crate::wire::InputKind;

/// Longest line. The longest input of a known model is a tenth of it.
pub(super) const MAX_LINE_BYTES: usize = 1 << 20;

/// Format of the lines of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineFormat {
    /// Each line is JSON.
    Json,
    /// Each line is plain text.
    Plain,
}

#[derive(Deserialize)]
struct LineFields<'a> {
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
}

impl LineFormat {
    /// Returns the format of a file that begins with this line. A damaged JSON object is not taken for plain text.
    pub(super) fn of(line: &Line) -> Self {
        let text = line.bytes.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok()).map(str::trim);
        let is_json = |text: &str| text.starts_with('{') || serde_json::from_str::<IgnoredAny>(text).is_ok();
        if text.is_none_or(is_json) { Self::Json } else { Self::Plain }
    }

    /// Returns the format that the extension of a file determines.
    pub(super) fn of_extension(extension: Option<&str>) -> Option<Self> {
        let is = |known: &str| extension.is_some_and(|extension| extension.eq_ignore_ascii_case(known));
        if ["json", "jsonl", "ndjson"].into_iter().any(is) {
            return Some(Self::Json);
        }
        is("txt").then_some(Self::Plain)
    }
}

/// Returns the JSON of a line's input, and its kind.
pub(super) fn read_line(line: &Line, format: LineFormat) -> Result<(Cow<'_, str>, InputKind), &'static str> {
    let bytes = line.bytes.as_deref().ok_or("it is longer than 1 MiB")?;
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
    match format {
        LineFormat::Json => read_json(text.trim()).map(|(json, kind)| (json.into(), kind)),
        LineFormat::Plain => {
            let text = text.trim_end_matches(['\r', '\n']);
            Ok((json!(text).to_string().into(), InputKind::Text))
        }
    }
}

fn read_json(text: &str) -> Result<(&str, InputKind), &'static str> {
    let input = if text.starts_with('{') {
        let fields: LineFields<'_> = serde_json::from_str(text).map_err(|_| "it is not JSON")?;
        match (fields.text, fields.input) {
            (Some(input), None) | (None, Some(input)) => input.get(),
            (Some(_), Some(_)) => return Err("it has both text and input"),
            (None, None) => return Err("it has neither text nor input"),
        }
    } else {
        text
    };
    Ok((input, kind_of(input)?))
}

fn kind_of(input: &str) -> Result<InputKind, &'static str> {
    if input.starts_with('"') {
        // An unpaired surrogate is also invalid.
        let text: String = serde_json::from_str(input).map_err(|_| "it is not JSON")?;
        if text.is_empty() { Err("the text is empty") } else { Ok(InputKind::Text) }
    } else if input.starts_with('[') {
        let tokens: Vec<u32> = serde_json::from_str(input).map_err(|_| "it is not an array of tokens")?;
        if tokens.is_empty() { Err("the array of tokens is empty") } else { Ok(InputKind::Tokens) }
    } else {
        Err("it is neither a text nor an array of tokens")
    }
}
