//! The calls that the stub received: one record per request, in order of arrival.

use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::Value;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// The number of its connection, from 1.
    pub(crate) connection: u64,
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    /// The whole body. Empty for uploads, which are counted in a stream.
    pub(crate) body: Bytes,
    pub(crate) at: Instant,
}

impl Call {
    /// Returns true for an embeddings call under any prefix.
    pub(crate) fn is_embeddings(&self) -> bool {
        self.route().trim_end_matches('/').ends_with("/embeddings")
    }

    /// Returns the path without its query.
    pub(crate) fn route(&self) -> &str {
        self.path.split('?').next().unwrap_or_default()
    }

    /// Returns the body as JSON, or null.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Returns a header's text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns the inputs, one JSON value each. A single text or token array counts as one input.
    pub(crate) fn inputs(&self) -> Vec<Value> {
        match self.json().get("input") {
            Some(Value::Array(items)) if !items.iter().all(Value::is_number) => items.clone(),
            Some(Value::Null) | None => Vec::new(),
            Some(single) => vec![single.clone()],
        }
    }

    /// Returns the inputs that are texts.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.inputs().iter().filter_map(Value::as_str).map(str::to_owned).collect()
    }
}
