//! Tokens that an answer reports, found without reading its vectors.

use memchr::memmem;
use serde::Deserialize;

/// Name of the member that holds the counts.
const USAGE: &[u8] = br#""usage""#;

#[derive(Deserialize)]
struct ReportedUsage {
    prompt_tokens: Option<u64>,
    total_tokens: Option<u64>,
}

/// Returns the tokens that an answer or a part of it reports. An answer holds numbers and the name of a model, so the
/// member can only be found where it is.
pub fn reported_tokens(part: &[u8]) -> Option<u64> {
    let at = memmem::rfind(part, USAGE)?;
    let rest = part[at + USAGE.len()..].trim_ascii_start().strip_prefix(b":")?;
    // An array would be accepted as a list of the members in order.
    let rest = Some(rest.trim_ascii_start()).filter(|rest| rest.starts_with(b"{"))?;
    let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<ReportedUsage>();
    let usage = values.next()?.ok()?;
    usage.prompt_tokens.or(usage.total_tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usage_is_found_in_a_whole_answer_and_in_its_end() {
        let answer = br#"{"data":[{"embedding":[0.1]}],"usage": {"prompt_tokens": 7, "total_tokens": 8}}"#;
        assert_eq!((reported_tokens(answer), reported_tokens(&answer[20..])), (Some(7), Some(7)));
        assert_eq!(reported_tokens(br#","usage":{"total_tokens":9},"model":"m"}"#), Some(9));
    }

    #[test]
    fn an_answer_without_a_readable_usage_reports_nothing() {
        let parts =
            ["", "{}", "\"usage\"", "\"usage\":", "\"usage\":{", "\"usage\":{\"prompt_tokens\":", "\"usage\":[1,2]"];
        for part in parts.iter().chain(&["\"usage\":{\"prompt_tokens\":-1}", "\"usage\":{}", "\"usage\":null"]) {
            assert_eq!(reported_tokens(part.as_bytes()), None, "{part}");
        }
    }
}
