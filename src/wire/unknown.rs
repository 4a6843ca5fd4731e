//! Names of the members that make a request pass through.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::members::keeps_vectors;

/// Fields with a meaning of their own.
const KNOWN: [&str; 5] = ["input", "model", "encoding_format", "dimensions", "user"];
/// Maximum number of names that are reported, and of characters of each, because a body may contain many.
const MAX_NAMES: usize = 10;
const MAX_CHARS: usize = 100;

/// Returns the names of members in a request body that make it pass through, as far as the body can be parsed. These
/// are members that are neither known nor null nor listed in `extra_fields`, and members with a value that changes the
/// contents of the answer.
pub fn unknown_fields(body: &[u8], extra_fields: &BTreeSet<String>) -> Vec<String> {
    // A body that is not a JSON object has no names to report.
    let fields: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    let is_unknown = |(name, value): &(&String, &Value)| {
        let is_listed = value.is_null() || extra_fields.contains(*name);
        let is_understood = is_listed && keeps_vectors(name, &value.to_string());
        !(is_understood || KNOWN.contains(&name.as_str()))
    };
    let shortened = |(name, _): (&String, &Value)| name.chars().take(MAX_CHARS).collect();
    fields.iter().filter(is_unknown).take(MAX_NAMES).map(shortened).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Bypass, PathModel, read_request};

    #[test]
    fn the_fields_that_cause_a_bypass_are_named() {
        let extra = BTreeSet::from(["task".to_owned()]);
        let body =
            br#"{"input":"a","model":"m","task":"t","late_chunking":true,"user":null,"truncate_dim":3,"x":null}"#;
        assert_eq!(unknown_fields(body, &extra), ["late_chunking", "truncate_dim"]);
        let guarded = BTreeSet::from(["output_dtype".to_owned()]);
        assert_eq!(unknown_fields(br#"{"input":"a","output_dtype":"int8"}"#, &guarded), ["output_dtype"]);
        assert_eq!(unknown_fields(b"[", &extra), [""; 0]);
        let many: Map<String, Value> = (0..50).map(|n| (format!("{n:0300}"), Value::from(n))).collect();
        let names = unknown_fields(Value::Object(many).to_string().as_bytes(), &extra);
        assert!(names.len() == MAX_NAMES && names.iter().all(|name| name.len() == MAX_CHARS));
    }

    #[test]
    fn every_known_field_is_accepted_by_the_request_reader() {
        for field in KNOWN {
            let body = format!(r#"{{"{field}":{{}}}}"#);
            let fault = read_request(body.as_bytes(), &BTreeSet::new(), PathModel::No).expect_err("it is not whole");
            assert_ne!(fault.reason, Bypass::UnknownField, "{field}");
        }
    }
}
