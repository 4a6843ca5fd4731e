//! Texts from callers and upstreams in log lines.

use std::borrow::Cow;

/// Largest size of text from a caller or an upstream in a log line, in bytes.
const MAX_LOGGED_BYTES: usize = 256;

/// Returns the start of a text: at most `most_bytes`, and an ellipsis if the text is longer.
pub fn shortened(text: &str, most_bytes: usize) -> Cow<'_, str> {
    let end = text.floor_char_boundary(most_bytes);
    if end == text.len() { Cow::Borrowed(text) } else { Cow::Owned(format!("{}\u{2026}", &text[..end])) }
}

/// Shortens a text from a caller or an upstream to the size allowed in a log line.
pub fn shorten_for_log(text: &str) -> Cow<'_, str> {
    shortened(text, MAX_LOGGED_BYTES)
}
