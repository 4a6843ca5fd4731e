//! Limits that tests set, and the tokens that a request waits for.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::stub::{Counted, Quota, Reported};

/// Limit of tokens that no test reaches.
const PLENTY: f64 = 1e9;

/// Returns limits that admit one call in this many seconds.
pub(super) fn one_call_in(seconds: f64, reported: Reported) -> Quota {
    // A little more than one call, against rounding.
    let counted = Counted::Bucket { capacity: seconds / 60.0 * 1.001 };
    Quota { requests: 60.0 / seconds, tokens: PLENTY, counted, reported }
}

/// Returns limits that admit this many calls a minute. The present minute ends after this time.
pub(super) fn calls_until_reset(calls: f64, reset: Duration, reported: Reported) -> Quota {
    let length = Duration::from_mins(1);
    let counted = Counted::Window { length, passed: length.checked_sub(reset).expect("a minute is longer") };
    Quota { requests: calls, tokens: PLENTY, counted, reported }
}

/// Returns a request for one text of a model with short vectors.
pub(super) fn text(text: &str) -> String {
    of_model("tiny", text)
}

pub(super) fn of_model(model: &str, text: &str) -> String {
    json!({"model": model, "input": [text]}).to_string()
}

/// Returns a request for as many texts as make it a bulk request.
pub(super) fn many(name: &str) -> String {
    let texts: Vec<Value> = (0..16).map(|number| json!(format!("{name} {number}"))).collect();
    json!({"model": "tiny", "input": texts}).to_string()
}
