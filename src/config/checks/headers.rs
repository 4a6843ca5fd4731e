//! Values that are names or values of headers.

use http::{HeaderName, HeaderValue};

use crate::config::Secret;
use crate::config::reader::Reader;

/// Reads a secret that is sent in a header.
pub(super) fn header_secret(reader: &mut Reader, name: &str) -> Option<Secret> {
    let secret = reader.secret(name)?;
    if HeaderValue::from_str(secret.reveal()).is_err() {
        reader.fault(name, "holds characters that a header cannot carry");
    }
    Some(secret)
}

/// Parses the name of a header.
pub(super) fn header_name(name: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} is not the name of a header"))
}
