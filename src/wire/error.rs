//! OpenAI's error envelope, with all four keys, because strict clients reject anything else.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

/// Returns an error body.
pub fn envelope(message: &str, kind: &str, param: Option<&str>, code: Option<&str>) -> Bytes {
    // Written by hand to keep the service's familiar order of keys.
    let [message, kind, param, code] = [json!(message), json!(kind), json!(param), json!(code)];
    Bytes::from(format!(r#"{{"error":{{"message":{message},"type":{kind},"param":{param},"code":{code}}}}}"#))
}

/// Fields of an error body that decisions need. Absent or unreadable fields are empty.
#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct ErrorFields {
    /// Human-readable text.
    #[serde(deserialize_with = "text_or_nothing")]
    pub message: String,
    /// Class of the error.
    #[serde(rename = "type", deserialize_with = "text_or_nothing")]
    pub kind: String,
    /// Machine-readable cause.
    #[serde(deserialize_with = "text_or_nothing")]
    pub code: String,
    /// Member of the request that caused the error.
    #[serde(deserialize_with = "text_or_nothing")]
    pub param: String,
}

#[derive(Deserialize)]
struct Envelope {
    error: ErrorFields,
}

/// Reads an error body. Bodies of other shapes give empty fields.
pub fn error_fields(body: &[u8]) -> ErrorFields {
    serde_json::from_slice::<Envelope>(body).map(|envelope| envelope.error).unwrap_or_default()
}

/// Returns the `code` of an error body, or its `type` if there is no code.
pub fn error_code(body: &[u8]) -> String {
    let fields = error_fields(body);
    if fields.code.is_empty() { fields.kind } else { fields.code }
}

fn text_or_nothing<'de, D: serde::Deserializer<'de>>(value: D) -> Result<String, D::Error> {
    // Some servers send a number or null here, which must not hide the other fields.
    let value = serde_json::Value::deserialize(value)?;
    Ok(value.as_str().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_envelope_has_all_four_keys() {
        let body = envelope("no", "invalid_request_error", None, Some("x"));
        let read: serde_json::Value = serde_json::from_slice(&body).expect("it is JSON");
        assert_eq!(
            read,
            json!({"error": {"message": "no", "type": "invalid_request_error", "param": null, "code": "x"}})
        );
    }

    #[test]
    fn error_codes_are_found_and_foreign_bodies_have_none() {
        assert_eq!(error_code(br#"{"error":{"code":"insufficient_quota"}}"#), "insufficient_quota");
        assert_eq!(error_code(br#"{"error":{"code":null,"type":"server_error"}}"#), "server_error");
        assert_eq!(error_code(br#"{"error":"flat"}"#), "");
        assert_eq!(error_code(b"<html>"), "");
    }
}
