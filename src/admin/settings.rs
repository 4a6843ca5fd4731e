//! The configuration in force, and the log level, which can be changed at run time.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use super::AdminContext;
use super::reply::{self, AdminResponse, Refusal};
use crate::config::BadLevel;

/// `GET /api/config`
pub(super) fn show(context: &AdminContext) -> AdminResponse {
    reply::ok(&context.live.load().effective.to_json())
}

#[derive(Deserialize)]
#[serde(untagged)]
enum LogLevelRequest {
    Word(String),
    Object(LogLevel),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogLevel {
    level: String,
}

/// `PUT /api/log-level`: the body is `{"level":"debug"}` or the bare word.
pub(super) fn set_log_level(context: &AdminContext, body: &Bytes) -> Result<AdminResponse, Refusal> {
    let previous = context.level.current();
    let level = requested_level(body)?;
    let bad_level = |error: BadLevel| Refusal::BadParameter { param: "level".to_owned(), message: error.to_string() };
    context.level.set(&level).map_err(bad_level)?;
    Ok(reply::ok(&json!({ "level": context.level.current(), "previous": previous })))
}

fn requested_level(body: &[u8]) -> Result<String, Refusal> {
    let text = str::from_utf8(body).map(str::trim).unwrap_or_default();
    // A level begins with neither of these characters, so they mark JSON.
    let level = if text.starts_with(['{', '"']) { level_in_json(text) } else { Some(text.to_owned()) };
    level
        .filter(|level| !level.is_empty())
        .ok_or_else(|| Refusal::BadBody("The body must be like {\"level\": \"debug\"}, or the bare word.".to_owned()))
}

fn level_in_json(text: &str) -> Option<String> {
    match serde_json::from_str(text).ok()? {
        LogLevelRequest::Word(level) | LogLevelRequest::Object(LogLevel { level }) => Some(level),
    }
}
