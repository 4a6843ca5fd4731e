//! Names of the members that make a request pass through.

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use super::inputs::Name;
use super::members::keeps_vectors;

/// Fields with a meaning of their own.
const KNOWN: [&str; 5] = ["input", "model", "encoding_format", "dimensions", "user"];
/// Maximum number of names that are reported, and of characters of each, because a body may contain many.
const MAX_NAMES: usize = 10;
const MAX_CHARS: usize = 100;
/// Maximum number of members that are examined. A request with more passes through in any case.
const MAX_EXAMINED: usize = 4_096;

/// Returns the names of members in a request body that make it pass through, as far as the body can be parsed. These
/// are members that are neither known nor null nor listed in `extra_fields`, and members with a value that changes the
/// contents of the answer.
pub fn unknown_fields(body: &[u8], extra_fields: &BTreeSet<String>) -> Vec<String> {
    let mut names = Vec::new();
    // An error ends the search: the body is no object, or enough of it was examined.
    serde_json::Deserializer::from_slice(body).deserialize_map(NamesVisitor { extra_fields, names: &mut names }).ok();
    names
}

/// Visitor of the members. It collects names until it has seen enough.
struct NamesVisitor<'n> {
    extra_fields: &'n BTreeSet<String>,
    names: &'n mut Vec<String>,
}

impl NamesVisitor<'_> {
    fn is_unknown(&self, name: &str, value: &str) -> bool {
        let is_listed = value == "null" || self.extra_fields.contains(name);
        let is_understood = is_listed && keeps_vectors(name, value);
        !(is_understood || KNOWN.contains(&name))
    }
}

impl<'de> Visitor<'de> for NamesVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        for _ in 0..MAX_EXAMINED {
            let Some((Name(name), value)) = map.next_entry::<Name<'de>, &'de RawValue>()? else { break };
            if self.is_unknown(&name, value.get()) {
                self.names.push(name.chars().take(MAX_CHARS).collect());
            }
            if self.names.len() == MAX_NAMES {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value};

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
        assert_eq!(unknown_fields(br#"{"input":"a","output_dtype": "float" }"#, &guarded), [""; 0]);
        assert_eq!(unknown_fields(b"[", &extra), [""; 0]);
        let many: Map<String, Value> = (0..50).map(|n| (format!("{n:0300}"), Value::from(n))).collect();
        let names = unknown_fields(Value::Object(many).to_string().as_bytes(), &extra);
        assert!(names.len() == MAX_NAMES && names.iter().all(|name| name.len() == MAX_CHARS));
    }

    #[test]
    fn only_the_first_members_of_a_long_body_are_examined() {
        let last = |nulls: usize| {
            let members: Vec<String> =
                (0..nulls).map(|n| format!("\"m{n}\":null")).chain(["\"last\":1".to_owned()]).collect();
            format!("{{{}}}", members.join(","))
        };
        assert_eq!(unknown_fields(last(MAX_EXAMINED - 1).as_bytes(), &BTreeSet::new()), ["last"]);
        assert_eq!(unknown_fields(last(MAX_EXAMINED).as_bytes(), &BTreeSet::new()), [""; 0]);
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
