//! Values of further members: decides which of them may join a key, and as which text.

use std::fmt;

use serde::de::{self, Deserializer as _, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::inputs::Name;
use super::{Bypass, Extra};

/// Maximum size of an object, or of a number that is not a small whole one.
const MAX_BYTES: usize = 8 * 1024;
/// Maximum number of members of an object.
const MAX_MEMBERS: usize = 2048;
/// Maximum nesting of an object.
const MAX_DEPTH: usize = 16;

const FLOAT: &[&str] = &["\"float\"", "\"float32\""];
const FALSE: &[&str] = &["false"];

/// Members that may change the contents of an answer, with the values for which it holds one f32 vector per input. With
/// any other value a request is never cached, whatever the configuration lists.
const GUARDED: [(&str, &[&str]); 16] = [
    ("dtype", FLOAT),
    ("embed_dtype", FLOAT),
    ("embedding_dtype", FLOAT),
    ("embedding_type", FLOAT),
    ("embedding_types", FLOAT),
    ("encoding", FLOAT),
    ("encoding_type", FLOAT),
    ("endianness", &["\"little\""]),
    ("late_chunking", FALSE),
    ("modality", &["\"text\""]),
    ("output_dtype", FLOAT),
    ("output_type", &["\"dense\""]),
    ("return_colbert_vecs", FALSE),
    ("return_multivector", FALSE),
    ("return_sparse", FALSE),
    ("return_token_embeddings", FALSE),
];

/// Returns true if a member with this value leaves one f32 vector per input.
pub(super) fn keeps_vectors(name: &str, canonical: &str) -> bool {
    let guard = GUARDED.iter().find(|(guarded, _)| *guarded == name);
    canonical == "null" || guard.is_none_or(|(_, allowed)| allowed.contains(&canonical))
}

/// Reads the value of a member without a meaning of its own here. Null means that the caller does not use the member,
/// so any name may have it. Other values need a listed name.
pub(super) fn read_member(name: &str, text: &str, is_listed: bool) -> Result<Extra, Bypass> {
    if !is_listed && text != "null" {
        return Err(Bypass::UnknownField);
    }
    // The first byte tells the type. Parsing into a value would not: an object with the JSON library's private marker
    // would be taken for its content.
    let canonical = match text.as_bytes().first() {
        // A list may hold one value per input. Then the meaning of a vector would depend on its place.
        Some(b'[') => return Err(Bypass::WrongType),
        Some(b'{') if text.len() > MAX_BYTES => return Err(Bypass::WrongType),
        _ => {
            let mut canonical = String::new();
            write_canonical(text, MAX_DEPTH, &mut canonical)?;
            canonical
        }
    };
    if keeps_vectors(name, &canonical) { Ok(Extra::new(canonical, text)) } else { Err(Bypass::UnknownField) }
}

/// Writes a value in canonical form, so equal values have equal texts. Members are sorted, strings and whole numbers
/// are written by value, and other numbers as they are.
fn write_canonical(text: &str, depth: usize, out: &mut String) -> Result<(), Bypass> {
    match text.as_bytes().first() {
        // The recursion is bounded, because a caller chooses the depth.
        Some(b'{' | b'[') if depth == 0 => Err(Bypass::WrongType),
        Some(b'{') => write_object(text, depth - 1, out),
        Some(b'[') => write_list(text, depth - 1, out),
        _ => write_scalar(text, out),
    }
}

fn write_object(text: &str, depth: usize, out: &mut String) -> Result<(), Bypass> {
    let members = read_object(text)?;
    out.push('{');
    for (place, (Name(name), value)) in members.iter().enumerate() {
        if place > 0 {
            out.push(',');
        }
        out.push_str(&Value::from(name.as_ref()).to_string());
        out.push(':');
        write_canonical(value.get(), depth, out)?;
    }
    out.push('}');
    Ok(())
}

/// Reads the members of an object, sorted by name. A name that occurs twice is a fault.
pub(super) fn read_object(text: &str) -> Result<Vec<(Name<'_>, &RawValue)>, Bypass> {
    let mut json = serde_json::Deserializer::from_str(text);
    let members = json.deserialize_map(MembersVisitor).and_then(|members| json.end().map(|()| members));
    let mut members = members.map_err(|error| syntax_fault(&error))?;
    // After the sort, equal names are neighbours. RFC 8259, section 4: readers differ in which of two they use.
    members.sort_by(|(left, _), (right, _)| left.0.cmp(&right.0));
    if members.windows(2).any(|pair| pair[0].0.0 == pair[1].0.0) {
        return Err(Bypass::DuplicateKey);
    }
    Ok(members)
}

fn write_list(text: &str, depth: usize, out: &mut String) -> Result<(), Bypass> {
    let items: Vec<&RawValue> = serde_json::from_str(text).map_err(|error| syntax_fault(&error))?;
    out.push('[');
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            out.push(',');
        }
        write_canonical(item.get(), depth, out)?;
    }
    out.push(']');
    Ok(())
}

fn write_scalar(text: &str, out: &mut String) -> Result<(), Bypass> {
    let value: Value = serde_json::from_str(text).map_err(|error| syntax_fault(&error))?;
    // The text is kept as it is, because distinct numbers may parse to the same f64.
    match &value {
        Value::Number(number) if number.is_f64() && text.len() > MAX_BYTES => return Err(Bypass::WrongType),
        Value::Number(number) if number.is_f64() => out.push_str(text),
        scalar => out.push_str(&scalar.to_string()),
    }
    Ok(())
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Vec<(Name<'de>, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(name) = map.next_key::<Name<'de>>()? {
            if members.len() == MAX_MEMBERS {
                return Err(de::Error::custom("too many members"));
            }
            members.push((name, map.next_value::<&'de RawValue>().map_err(de::Error::custom)?));
        }
        Ok(members)
    }
}

/// Returns the reason for a JSON error that no visitor has explained.
pub(super) fn syntax_fault(error: &serde_json::Error) -> Bypass {
    let text = error.to_string();
    // serde_json has no kind of error for surrogates and names the cause only in its message.
    let surrogate = text.contains("surrogate") || text.contains("unexpected end of hex escape");
    match error.classify() {
        serde_json::error::Category::Data => Bypass::WrongType,
        _ if surrogate => Bypass::LoneSurrogate,
        _ => Bypass::NotJson,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> Result<String, Bypass> {
        read_member("provider", text, true).map(|extra| extra.canonical().to_owned())
    }

    #[test]
    fn equal_objects_have_one_canonical_text() {
        let one = canonical(r#"{"order":["x","y"],"allow":{"b":1,"a":null}}"#);
        assert_eq!(one.as_deref(), Ok(r#"{"allow":{"a":null,"b":1},"order":["x","y"]}"#));
        assert_eq!(canonical(r#"{ "allow" : {"a": null, "\u0062": 1}, "order" : [ "\u0078", "y" ] }"#), one);
        for other in [r#"{"order":["y","x"],"allow":{"b":1,"a":null}}"#, r#"{"order":["x","y"],"allow":{"b":1}}"#] {
            assert_ne!(canonical(other), one, "{other}");
        }
    }

    #[test]
    fn a_member_is_forwarded_as_the_caller_wrote_it() {
        let written = r#"{ "b" : "\u00e9", "a" : 1.50 }"#;
        let extra = read_member("provider", written, true).expect("it is read");
        assert_eq!((extra.canonical(), extra.written()), (r#"{"a":1.50,"b":"é"}"#, written));
    }

    #[test]
    fn ambiguous_or_oversized_objects_are_refused() {
        let nested = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        assert!(canonical(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(canonical(&nested(MAX_DEPTH + 1)), Err(Bypass::WrongType));
        assert_eq!(canonical(&format!(r#"{{"a":"{}"}}"#, "x".repeat(MAX_BYTES))), Err(Bypass::WrongType));
        assert_eq!(canonical(r#"{"a":1,"\u0061":2}"#), Err(Bypass::DuplicateKey));
        assert_eq!(canonical(r#"{"x":[{"a":1,"a":1}]}"#), Err(Bypass::DuplicateKey));
        assert_eq!(canonical(r#"{"a":"\ud800"}"#), Err(Bypass::LoneSurrogate));
        assert_eq!(canonical("[1]"), Err(Bypass::WrongType));
        let own = r#"{"$serde_json::private::RawValue":"\"x\""}"#;
        assert_eq!(canonical(own).as_deref(), Ok(own));
    }

    #[test]
    fn fractional_numbers_are_kept_as_written() {
        for (text, expected) in
            [("0.5", "0.5"), ("0.50", "0.50"), ("1e2", "1e2"), ("7", "7"), ("-7", "-7"), ("1.0", "1.0")]
        {
            assert_eq!(canonical(text).as_deref(), Ok(expected));
        }
        assert_eq!(canonical(&format!("0.{}", "1".repeat(MAX_BYTES))), Err(Bypass::WrongType), "within bounds");
    }

    #[test]
    fn values_that_change_the_kind_of_vector_are_never_accepted() {
        for (name, allowed) in GUARDED {
            for value in allowed.iter().chain(&["null"]) {
                assert!(read_member(name, value, true).is_ok(), "{name}: {value}");
            }
            for value in ["\"int8\"", "\"binary\"", "true", "1", "{}", "\"FLOAT\"", "\"base64\""] {
                assert_eq!(read_member(name, value, true), Err(Bypass::UnknownField), "{name}: {value}");
            }
        }
    }

    #[test]
    fn an_unlisted_member_may_only_be_null() {
        assert_eq!(read_member("any", "null", false).map(|extra| extra.canonical().to_owned()).as_deref(), Ok("null"));
        for value in ["1", "\"null\"", "{}", "[]", "[null]", "false"] {
            assert_eq!(read_member("any", value, false), Err(Bypass::UnknownField), "{value}");
        }
    }
}
