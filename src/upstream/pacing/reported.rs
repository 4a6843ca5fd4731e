//! The limits that a service reports with its answers, as OpenAI and Azure do.
//!
//! Source: OpenAI, "Rate limits", section "Rate limits in headers"; Azure sends the same headers.

use std::time::Duration;

use http::HeaderMap;

/// Resource that a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    /// Calls.
    Requests,
    /// Tokens.
    Tokens,
}

impl Resource {
    pub(super) const ALL: [Self; 2] = [Self::Requests, Self::Tokens];

    /// Returns the amount that a call with this many tokens needs.
    pub(super) const fn amount(self, tokens: usize) -> usize {
        match self {
            Self::Requests => 1,
            Self::Tokens => tokens,
        }
    }
}

/// State of one limit, as the service reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QuotaReport {
    /// Maximum per minute, or per longer time, if the service names it.
    pub(super) limit: Option<u64>,
    /// Amount that is left.
    pub(super) left: u64,
    /// Time until all of it is left again.
    pub(super) reset: Option<Duration>,
}

/// Longest time until a reset. A longer one is no time, such as seconds of the Unix epoch.
const LONGEST_RESET: Duration = Duration::from_hours(24);

/// Reads the state of a limit.
pub(super) fn read(headers: &HeaderMap, resource: Resource) -> Option<QuotaReport> {
    let [limit, left, reset] = names(resource);
    let limit = match headers.get(limit) {
        // Some gateways report a limit of zero or less for "none".
        Some(limit) => Some(limit.to_str().ok()?.trim().parse().ok().filter(|limit| *limit > 0)?),
        None => None,
    };
    let left = text(headers, left)?.trim().parse().ok()?;
    let reset = text(headers, reset).and_then(duration).filter(|reset| *reset <= LONGEST_RESET);
    Some(QuotaReport { limit, left, reset })
}

const fn names(resource: Resource) -> [&'static str; 3] {
    match resource {
        Resource::Requests => {
            ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"]
        }
        Resource::Tokens => ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"],
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// Parses a duration as OpenAI writes it, such as `6m0s`, `1.5s` or `20ms`, or a number of seconds.
fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let (mut rest, mut sum) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, unit) = rest.split_at(digits);
        let end = unit.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(unit.len());
        let seconds = match &unit[..end] {
            "d" => 86_400.0,
            "h" => 3_600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        sum += number.parse::<f64>().ok()? * seconds;
        rest = &unit[end..];
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(sum).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn durations_are_read_in_every_form() {
        for (text, millis) in [
            ("6m0s", 360_000),
            ("20ms", 20),
            ("1.5s", 1_500),
            ("1h2m3s", 3_723_000),
            ("7m12s", 432_000),
            ("2m59.56s", 179_560),
            ("10", 10_000),
            ("0s", 0),
            ("0", 0),
            (" 1s ", 1_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(duration(text).map(|found| found.as_millis()), Some(millis), "{text}");
        }
        for text in ["", "s", "5x", "-1s", "-1", "1s5", "nan", "inf", "1..5s", "1e400"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn limits_are_read_as_openai_reports_them() {
        let headers = headers(&[
            ("x-ratelimit-limit-requests", "3000"),
            ("x-ratelimit-remaining-requests", "2999"),
            ("x-ratelimit-reset-requests", "20ms"),
            ("x-ratelimit-limit-tokens", "1000000"),
            ("x-ratelimit-remaining-tokens", "999990"),
        ]);
        let requests = QuotaReport { limit: Some(3_000), left: 2_999, reset: Some(Duration::from_millis(20)) };
        assert_eq!(read(&headers, Resource::Requests), Some(requests));
        let tokens = QuotaReport { limit: Some(1_000_000), left: 999_990, reset: None };
        assert_eq!(read(&headers, Resource::Tokens), Some(tokens));
        let epoch = self::headers(&[
            ("x-ratelimit-limit-requests", "5"),
            ("x-ratelimit-remaining-requests", "4"),
            ("x-ratelimit-reset-requests", "1764560000"),
        ]);
        assert_eq!(read(&epoch, Resource::Requests).and_then(|report| report.reset), None);
    }

    #[test]
    fn incomplete_or_odd_limits_say_nothing() {
        for pairs in [
            &[][..],
            &[("x-ratelimit-limit-requests", "5")],
            &[("x-ratelimit-remaining-requests", "-1")],
            &[("x-ratelimit-limit-requests", "0"), ("x-ratelimit-remaining-requests", "0")],
            &[("x-ratelimit-limit-requests", "-1"), ("x-ratelimit-remaining-requests", "5")],
            &[("x-ratelimit-limit-requests", "many"), ("x-ratelimit-remaining-requests", "5")],
        ] {
            assert_eq!(read(&headers(pairs), Resource::Requests), None, "{pairs:?}");
        }
    }

    #[test]
    fn what_is_left_is_read_without_a_limit_as_azure_reports_it() {
        let headers = headers(&[("x-ratelimit-remaining-requests", "79")]);
        let report = QuotaReport { limit: None, left: 79, reset: None };
        assert_eq!(read(&headers, Resource::Requests), Some(report));
    }
}
