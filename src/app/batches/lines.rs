//! The lines of the two files.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::process::lines::NumberedLines;

/// Longest line of requests. A line is bounded because the service limits inputs and tokens.
pub(super) const MAX_REQUEST_BYTES: usize = 64 << 20;

/// A line of the request file.
#[derive(Deserialize)]
pub(super) struct RequestLine<'a> {
    pub(super) custom_id: String,
    #[serde(default)]
    pub(super) method: Option<String>,
    pub(super) url: String,
    #[serde(borrow)]
    pub(super) body: &'a RawValue,
}

/// A line of the answer file.
#[derive(Deserialize)]
pub(super) struct AnswerLine<'a> {
    pub(super) custom_id: String,
    #[serde(borrow, default)]
    pub(super) response: Option<BatchResponse<'a>>,
}

/// Matches a line that has `response`, even a null one: only answers have this member.
#[derive(Deserialize)]
pub(super) struct BatchAnswer {
    #[serde(rename = "response")]
    _response: IgnoredAny,
}

#[derive(Deserialize)]
pub(super) struct BatchResponse<'a> {
    pub(super) status_code: u16,
    #[serde(borrow)]
    pub(super) body: &'a RawValue,
}

/// Reads the line of requests at an offset.
pub(super) fn line_at(file: &mut File, offset: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(offset))?;
    let line = NumberedLines::new(BufReader::new(file.by_ref()), MAX_REQUEST_BYTES).next_line()?;
    Ok(line.and_then(|line| line.bytes).unwrap_or_default())
}
