//! Conversions of single values: from raw to a Rust type, and to the displayed form.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Value;

const UNITS: [(&str, u128); 6] =
    [("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)];

pub(super) fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) if text.is_empty() => Err("must not be empty".to_owned()),
        Value::String(text) => Ok(text.clone()),
        other => Err(format!("{other} is not text")),
    }
}

pub(super) fn count(value: &Value, range: &RangeInclusive<u64>) -> Result<u64, String> {
    let number = match value {
        Value::Integer(number) => u64::try_from(*number).ok(),
        // Numbers from the environment and from flags are text. TOML allows underscores in numbers.
        Value::String(text) => text.trim().replace('_', "").parse().ok(),
        _ => None,
    };
    within(number.ok_or_else(|| format!("{value} is not a whole number"))?, range)
}

pub(super) fn ratio(value: &Value, range: &RangeInclusive<f64>) -> Result<f64, String> {
    let number = match value {
        Value::Float(number) => Some(*number),
        // 32 bits fit an f64 exactly.
        Value::Integer(number) => i32::try_from(*number).ok().map(f64::from),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    within(number.ok_or_else(|| format!("{value} is not a number"))?, range)
}

/// Parses text with units (`250ms`, `1h 30m`) or a whole number of seconds.
pub(super) fn duration(value: &Value, range: &RangeInclusive<Duration>) -> Result<Duration, String> {
    // A number without a unit counts as seconds, also as text from the environment.
    let seconds = count(value, &(0..=u64::MAX)).ok().map(Duration::from_secs);
    let length = seconds.or_else(|| parse_duration(value.as_str()?));
    let length = length.ok_or_else(|| format!("{value} is not a duration (such as \"250ms\", \"30s\", \"30d\")"))?;
    if range.contains(&length) {
        return Ok(length);
    }
    Err(format!("{value} is not between {} and {}", shown_duration(*range.start()), shown_duration(*range.end())))
}

/// Parses text with units, such as `250ms` or `1h 30m`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text.trim()).ok()
}

/// Parses an array of text, or text with commas as in environment variables.
pub(super) fn list(value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::String(text) => Ok(text.split(',').map(|item| item.trim().to_owned()).collect()),
        Value::Array(items) => items.iter().map(text).collect(),
        other => Err(format!("{other} is not a list of text")),
    }
}

pub(super) fn switch(value: &Value) -> Result<bool, String> {
    match value {
        Value::Boolean(on) => Ok(*on),
        Value::String(text) if text == "true" => Ok(true),
        Value::String(text) if text == "false" => Ok(false),
        other => Err(format!("{other} is neither true nor false")),
    }
}

/// Returns the meaning of one of a few words.
pub(super) fn choice<T: Copy>(value: &Value, words: &[(&str, T)]) -> Result<T, String> {
    let said = value.as_str().unwrap_or_default();
    words.iter().find(|(word, _)| *word == said).map(|(_, meaning)| *meaning).ok_or_else(|| {
        let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        format!("{value} is none of {}", all.join(", "))
    })
}

/// Returns the shortest text that parses to the same duration.
pub(super) fn shown_duration(length: Duration) -> String {
    let micros = length.as_micros();
    // Units are in descending order, so the first that divides the length gives the shortest text.
    let exact = UNITS.iter().find(|(_, unit)| micros > 0 && micros.is_multiple_of(*unit));
    exact.map_or_else(|| "0s".to_owned(), |(name, unit)| format!("{}{name}", micros / unit))
}

fn within<T: PartialOrd + Display>(number: T, range: &RangeInclusive<T>) -> Result<T, String> {
    if range.contains(&number) {
        return Ok(number);
    }
    Err(format!("{number} is not between {} and {}", range.start(), range.end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: RangeInclusive<Duration> = Duration::ZERO..=Duration::MAX;

    fn said(text: &str) -> Value {
        Value::String(text.to_owned())
    }

    #[test]
    fn a_duration_is_text_with_a_unit_or_whole_seconds() {
        for (text, millis) in [("250ms", 250), ("30s", 30_000), ("5m", 300_000), ("1h", 3_600_000), ("90", 90_000)] {
            assert_eq!(duration(&said(text), &ANY), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(duration(&said("30d"), &ANY), Ok(Duration::from_hours(720)));
        assert_eq!(duration(&Value::Integer(3), &ANY), Ok(Duration::from_secs(3)));
    }

    #[test]
    fn an_invalid_duration_is_quoted_in_the_fault() {
        assert_eq!(
            duration(&said("abc"), &ANY).unwrap_err(),
            "\"abc\" is not a duration (such as \"250ms\", \"30s\", \"30d\")"
        );
        assert!(duration(&Value::Integer(-1), &ANY).is_err());
        assert!(duration(&Value::Boolean(true), &ANY).is_err());
    }

    #[test]
    fn a_displayed_duration_parses_to_the_same_value() {
        for length in
            [Duration::ZERO, Duration::from_millis(1_500), Duration::from_hours(720), Duration::from_micros(7)]
        {
            assert_eq!(duration(&said(&shown_duration(length)), &ANY), Ok(length));
        }
        assert_eq!(shown_duration(Duration::from_hours(24)), "1d");
    }

    #[test]
    fn numbers_outside_their_range_or_not_finite_are_refused() {
        assert_eq!(count(&said("0"), &(1..=9)).unwrap_err(), "0 is not between 1 and 9");
        assert_eq!(count(&Value::Integer(-4), &(0..=9)).unwrap_err(), "-4 is not a whole number");
        assert!(ratio(&said("nan"), &(0.0..=10.0)).is_err());
        assert!(ratio(&said("inf"), &(0.0..=10.0)).is_err());
        assert_eq!(ratio(&said("0.5"), &(0.0..=10.0)), Ok(0.5));
    }

    #[test]
    fn a_list_is_an_array_or_text_with_commas() {
        let both = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(list(&said("a, b")), Ok(both.clone()));
        assert_eq!(list(&Value::Array(vec![said("a"), said("b")])), Ok(both));
        assert!(list(&Value::Array(vec![Value::Integer(1)])).is_err());
    }
}
