//! Several places that serve the same models.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::Uri;

use super::KeyHeader;
use crate::config::Secret;

/// One of `[[targets]]`.
#[derive(Clone, Debug)]
pub struct TargetConfig {
    /// Its name in headers, metrics and logs.
    pub name: Arc<str>,
    /// Its base URL, as in `upstream.url`.
    pub url: Uri,
    /// The API key that is sent to it.
    pub api_key: Secret,
    /// Header of that key.
    pub api_key_header: KeyHeader,
    /// Share of the calls that it gets, relative to the other targets.
    pub weight: u32,
    /// Maximum number of calls a minute.
    pub requests_per_minute: Option<u64>,
    /// Maximum number of tokens a minute.
    pub tokens_per_minute: Option<u64>,
    /// Maximum number of calls in flight.
    pub concurrent: Option<usize>,
    /// The models that it serves, with their names there; every model under its own name if empty.
    pub models: BTreeMap<String, String>,
}

impl TargetConfig {
    /// Returns true if the two differ in nothing but the key, which may be replaced while vecho runs.
    pub fn is_same_place(&self, other: &Self) -> bool {
        self.name == other.name && self.url == other.url && self.api_key_header == other.api_key_header
    }
}
