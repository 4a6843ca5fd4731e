//! What the stub saw: one record per request, in order of arrival.

use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::Value;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// Which connection it came over; counted from 1.
    pub(crate) connection: u64,
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    /// The whole body; empty for uploads, which are counted as they come.
    pub(crate) body: Bytes,
    pub(crate) at: Instant,
}

impl Call {
    /// Whether it asks for embeddings, under whatever prefix.
    pub(crate) fn is_embeddings(&self) -> bool {
        self.route().trim_end_matches('/').ends_with("/embeddings")
    }

    /// The path without its query.
    pub(crate) fn route(&self) -> &str {
        self.path.split('?').next().unwrap_or_default()
    }

    /// The body as JSON, or null.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A header's text, or nothing.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Its inputs, one JSON value each: a single text or token array counts as one.
    pub(crate) fn inputs(&self) -> Vec<Value> {
        match self.json().get("input") {
            Some(Value::Array(items)) if !items.iter().all(Value::is_number) => items.clone(),
            Some(Value::Null) | None => Vec::new(),
            Some(single) => vec![single.clone()],
        }
    }

    /// Its inputs where they are texts.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.inputs().iter().filter_map(Value::as_str).map(str::to_owned).collect()
    }
}
