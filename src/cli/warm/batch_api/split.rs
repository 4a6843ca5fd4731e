//! Divides a part that exceeds the limit of enqueued tokens by itself.

use std::fs::File;
use std::io::{self, BufReader};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::part_files::{JobRequest, MAX_REQUEST_BYTES, PartWriter, tokens_of};
use super::state::JobPart;
use super::state_file::{PartFile, StateFile};
use crate::process::lines::NumberedLines;

/// A line of a part's requests.
#[derive(Deserialize)]
struct WrittenRequest<'a> {
    custom_id: String,
    #[serde(borrow)]
    body: WrittenBody<'a>,
}

#[derive(Deserialize)]
struct WrittenBody<'a> {
    #[serde(borrow)]
    input: &'a RawValue,
}

/// Writes the requests of a part to new parts, and returns these.
pub(super) fn split(
    state_file: &StateFile,
    part: &JobPart,
    mut writer: PartWriter<'_>,
    model: &str,
) -> io::Result<Vec<JobPart>> {
    let requests = File::open(state_file.of_part(part.number, PartFile::Requests))?;
    let mut lines = NumberedLines::new(BufReader::new(requests), MAX_REQUEST_BYTES);
    while let Some(line) = lines.next_line()? {
        let bytes = line.bytes.unwrap_or_default();
        let WrittenRequest { custom_id, body } = serde_json::from_slice(&bytes)?;
        let input = body.input.get();
        writer.add(&JobRequest { custom_id, input, tokens: tokens_of(input, model) })?;
    }
    writer.end()
}

/// Returns the limit of enqueued tokens that a message names, such as `Limit: 3,000,000 enqueued tokens` or
/// `limit of 30K`.
pub(super) fn named_limit(message: &str) -> Option<u64> {
    let (_, rest) = ["Limit: ", "limit of "].iter().find_map(|before| message.split_once(before))?;
    let digits: String = rest.chars().take_while(|letter| letter.is_ascii_digit() || *letter == ',').collect();
    let unit = match rest[digits.len()..].chars().next() {
        Some('K') => 1_000,
        Some('M') => 1_000_000,
        _ => 1,
    };
    digits.replace(',', "").parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_read_from_the_messages_of_both_services() {
        for (message, limit) in [
            (
                "Enqueued token limit reached for m in organization o. Limit: 3,000,000 enqueued tokens. Try.",
                Some(3_000_000),
            ),
            (
                "The number of enqueued tokens has surpassed the configured limit of 30K for the deployment",
                Some(30_000),
            ),
            ("the limit of 2M tokens", Some(2_000_000)),
            ("the limit of your account", None),
            ("no", None),
        ] {
            assert_eq!(named_limit(message), limit, "{message}");
        }
    }
}
