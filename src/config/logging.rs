//! Format and level of the log.

use std::fmt;

use tracing_subscriber::EnvFilter;

/// Value of `log.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Plain text for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Error for a text that is not a log level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{level:?} is not a log level or filter: {reason}")]
pub struct BadLevel {
    level: String,
    reason: String,
}

impl BadLevel {
    /// Creates the error for a level that is rejected for this reason.
    pub fn new(level: &str, reason: &dyn fmt::Display) -> Self {
        Self { level: level.to_owned(), reason: reason.to_string() }
    }
}

/// Parses a level or a filter.
pub fn parse_log_level(level: &str) -> Result<EnvFilter, BadLevel> {
    if let Some(word) = level.split(',').map(str::trim).find(|word| is_no_level(word)) {
        return Err(BadLevel::new(level, &format_args!("{word:?} is none of error, warn, info, debug, trace, off")));
    }
    EnvFilter::builder().parse(level).map_err(|error| BadLevel::new(level, &error))
}

/// Detects invalid level names. The filter would accept any bare word as the name of a module, so a misspelled level
/// would silence all lines.
fn is_no_level(word: &str) -> bool {
    let bare = !word.contains(['=', '[', ']', '{', '}', '"']);
    word.is_empty() || bare && word.parse::<tracing::level_filters::LevelFilter>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_refused_and_filters_are_accepted() {
        for good in ["info", "WARN", "off", "info,vecho::upstream=debug", "vecho[request]=trace,error"] {
            assert!(parse_log_level(good).is_ok(), "{good}");
        }
        for wrong in ["", "inf", "info,debgu", "vecho=loud", "info,"] {
            assert!(parse_log_level(wrong).is_err(), "{wrong:?}");
        }
    }
}
