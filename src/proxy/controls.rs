//! Request controls: standard `cache-control`, and vecho's own headers.

use std::num::{IntErrorKind, ParseIntError};

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::config::{FallbackMode, Priority};
use crate::flow::Controls;

/// Maximum bytes of a namespace.
const MAX_NAMESPACE_BYTES: usize = 256;

/// Header that narrows the scope.
pub(super) const NAMESPACE: HeaderName = HeaderName::from_static("x-vecho-namespace");

/// A request control with an invalid value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadControl {
    /// `max-age` is not a number of seconds.
    #[error("cache-control: max-age takes a whole number of seconds")]
    MaxAge,
    /// An unknown fallback.
    #[error("x-vecho-fallback takes error, stale or mock")]
    Fallback,
    /// An unknown priority.
    #[error("x-vecho-priority takes interactive or bulk")]
    Priority,
    /// A namespace that is empty, too long or not visible ASCII.
    #[error("x-vecho-namespace takes 1 to 256 visible ASCII characters, once")]
    Namespace,
}

impl BadControl {
    /// Returns the faulty header.
    pub(super) const fn header(self) -> &'static str {
        match self {
            Self::MaxAge => "cache-control",
            Self::Fallback => "x-vecho-fallback",
            Self::Priority => "x-vecho-priority",
            Self::Namespace => "x-vecho-namespace",
        }
    }
}

/// Properties of a request's headers that determine how it is handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadControls {
    /// Controls of the caller.
    pub controls: Controls,
    /// True if the request has an `Origin`, as requests of web pages do.
    pub has_origin: bool,
}

/// Reads the controls of a request in one pass over its headers. Most requests have no controls, and a lookup per
/// control would cost a hash of its name.
pub fn read_controls(headers: &HeaderMap) -> Result<ReadControls, BadControl> {
    let (mut controls, mut has_origin, mut namespaces) = (Controls::default(), false, 0);
    for (name, value) in headers {
        match name.as_str() {
            "cache-control" => read_directives(value, &mut controls)?,
            "x-vecho-fallback" => {
                // Several headers can only narrow the fallback, regardless of which proxy added them.
                let asked = read_fallback(value)?;
                controls.fallback = Some(controls.fallback.map_or(asked, |before| before.min(asked)));
            }
            "x-vecho-priority" => {
                // Of several values, the less urgent one counts, regardless of which proxy added it.
                let asked = read_priority(value)?;
                controls.priority = Some(controls.priority.map_or(asked, |before| before.max(asked)));
            }
            "x-vecho-namespace" => {
                namespaces += 1;
                check_namespace(value, namespaces)?;
            }
            "origin" => has_origin = true,
            _ => {}
        }
    }
    Ok(ReadControls { controls, has_origin })
}

fn read_directives(value: &HeaderValue, controls: &mut Controls) -> Result<(), BadControl> {
    // A value with non-ASCII bytes is ignored, like an unknown directive.
    let directives = value.to_str().unwrap_or_default();
    directives.split(',').try_for_each(|directive| read_directive(directive.trim(), controls))
}

/// Reads one directive. Directives with no meaning for this cache are ignored (RFC 9111, section 5.2.3).
fn read_directive(directive: &str, controls: &mut Controls) -> Result<(), BadControl> {
    let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
    match name.trim().to_ascii_lowercase().as_str() {
        "no-cache" => controls.no_cache = true,
        "no-store" => controls.no_store = true,
        "only-if-cached" => controls.only_if_cached = true,
        "max-age" => {
            // RFC 9111 (section 5.2) asks recipients to accept the quoted form as well.
            let asked_ms = read_seconds(value.trim().trim_matches('"'))?.saturating_mul(1_000);
            // Of several values, the strictest counts.
            controls.max_age_ms = Some(controls.max_age_ms.map_or(asked_ms, |before| before.min(asked_ms)));
        }
        _ => {}
    }
    Ok(())
}

/// Parses seconds. A number that overflows becomes the maximum (RFC 9111, section 1.2.2).
fn read_seconds(digits: &str) -> Result<u64, BadControl> {
    digits.parse().or_else(|error: ParseIntError| match error.kind() {
        IntErrorKind::PosOverflow => Ok(u64::MAX),
        _ => Err(BadControl::MaxAge),
    })
}

fn read_fallback(value: &HeaderValue) -> Result<FallbackMode, BadControl> {
    match value.as_bytes() {
        b"error" => Ok(FallbackMode::Error),
        b"stale" => Ok(FallbackMode::Stale),
        b"mock" => Ok(FallbackMode::Mock),
        _ => Err(BadControl::Fallback),
    }
}

fn read_priority(value: &HeaderValue) -> Result<Priority, BadControl> {
    let named = |priority: &Priority| priority.name().as_bytes() == value.as_bytes();
    Priority::ALL.into_iter().find(named).ok_or(BadControl::Priority)
}

/// Returns the namespace of a request whose controls have been checked.
pub(super) fn namespace(headers: &HeaderMap) -> Option<&[u8]> {
    headers.get(NAMESPACE).map(HeaderValue::as_bytes)
}

/// Checks the `nth` namespace of a request. A second one is rejected as ambiguous.
fn check_namespace(value: &HeaderValue, nth: u32) -> Result<(), BadControl> {
    let name = value.as_bytes();
    let fits = (1..=MAX_NAMESPACE_BYTES).contains(&name.len()) && name.iter().all(u8::is_ascii_graphic);
    if fits && nth == 1 { Ok(()) } else { Err(BadControl::Namespace) }
}

#[cfg(test)]
mod tests {

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().expect("a value"))).collect()
    }

    #[test]
    fn directives_are_read_from_any_position() {
        let read = read_controls(&headers(&[("cache-control", "No-Cache, max-age=5"), ("x-vecho-fallback", "stale")]));
        let expected = Controls {
            no_cache: true,
            max_age_ms: Some(5_000),
            fallback: Some(FallbackMode::Stale),
            ..Controls::default()
        };
        assert_eq!(read.map(|read| read.controls), Ok(expected));
        let quoted = read_controls(&headers(&[("cache-control", "max-age=\"5\"")]));
        assert_eq!(quoted.map(|read| read.controls.max_age_ms), Ok(Some(5_000)));
        let others = read_controls(&headers(&[("cache-control", "max-stale=3, foo")]));
        assert_eq!(others, Ok(ReadControls::default()));
    }

    #[test]
    fn the_stricter_of_two_directives_wins_in_either_order() {
        for order in [["mock", "error"], ["error", "mock"]] {
            let mut twice = HeaderMap::new();
            for mode in order {
                twice.append("x-vecho-fallback", HeaderValue::from_static(mode));
            }
            assert_eq!(read_controls(&twice).map(|read| read.controls.fallback), Ok(Some(FallbackMode::Error)));
        }
        for ages in ["max-age=1, max-age=100", "max-age=100, max-age=1"] {
            let read = read_controls(&headers(&[("cache-control", ages)]));
            assert_eq!(read.map(|read| read.controls.max_age_ms), Ok(Some(1_000)), "{ages}");
        }
        let endless = read_controls(&headers(&[("cache-control", "max-age=99999999999999999999999")]));
        assert_eq!(endless.map(|read| read.controls.max_age_ms), Ok(Some(u64::MAX)));
    }

    #[test]
    fn invalid_controls_are_refused_by_name() {
        assert_eq!(read_controls(&headers(&[("cache-control", "max-age=soon")])), Err(BadControl::MaxAge));
        assert_eq!(read_controls(&headers(&[("x-vecho-fallback", "maybe")])), Err(BadControl::Fallback));
        assert_eq!(read_controls(&headers(&[("x-vecho-namespace", "")])), Err(BadControl::Namespace));
        assert_eq!(read_controls(&headers(&[("x-vecho-namespace", "a b")])), Err(BadControl::Namespace));
        assert_eq!(read_controls(&headers(&[("x-vecho-namespace", "team-a")])), Ok(ReadControls::default()));
        let mut two = HeaderMap::new();
        two.append(NAMESPACE, HeaderValue::from_static("a"));
        two.append(NAMESPACE, HeaderValue::from_static("a"));
        assert_eq!(read_controls(&two), Err(BadControl::Namespace));
    }
}
