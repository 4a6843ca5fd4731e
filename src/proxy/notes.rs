//! Headers of a response with vectors, and marks on other responses.

use std::mem::swap;

use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};

use crate::flow::SourceCounts;
use crate::observe::metrics::Outcome;
use crate::upstream::marks_fallback;
use crate::wire::BypassCause;

const CACHE: HeaderName = HeaderName::from_static("x-vecho-cache");
const SOURCES: HeaderName = HeaderName::from_static("x-vecho-sources");
const TOKENS: HeaderName = HeaderName::from_static("x-vecho-tokens");
const REASON: HeaderName = HeaderName::from_static("x-vecho-bypass-reason");
const FALLBACK: HeaderName = HeaderName::from_static("x-vecho-fallback-reason");
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CUT: HeaderName = HeaderName::from_static("x-vecho-truncated");
const MODEL: HeaderName = HeaderName::from_static("openai-model");

/// Longest model name in a header. Clients limit the size of headers, and the body also contains the name.
const MAX_MODEL_BYTES: usize = 256;

/// Headers of a response with vectors.
#[derive(Clone)]
pub(super) struct Notes {
    /// Outcome for the metrics, and `x-vecho-cache`.
    pub outcome: Outcome,
    /// `x-vecho-sources`
    pub sources: HeaderValue,
    /// `x-vecho-tokens`
    pub tokens: HeaderValue,
    /// `openai-model`, if the name is a valid header value.
    pub model: Option<HeaderValue>,
}

impl Notes {
    /// Returns the headers for a tally and a model.
    pub(super) fn new(source_counts: &SourceCounts, model: &str) -> Self {
        Self {
            outcome: source_counts.outcome(),
            sources: header_text(&source_counts.sources()),
            tokens: header_text(&source_counts.tokens()),
            model: model_header(model),
        }
    }

    /// Returns the headers to store with a cached reply. A copy of the map is much cheaper than the insertion of each
    /// header, and so is the replacement of an id compared to an insertion.
    pub(super) fn kept(&self, as_hit: &SourceCounts) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(8);
        // The id is the first header, so the search for it ends at once.
        headers.insert(REQUEST_ID, HeaderValue::from_static(""));
        self.clone().write(&mut headers);
        headers.insert(SOURCES, header_text(&as_hit.sources()));
        headers
    }

    /// Returns headers with empty values.
    pub(super) fn blank() -> HeaderMap {
        let empty = || HeaderValue::from_static("");
        let nothing = Self { outcome: Outcome::Hit, sources: empty(), tokens: empty(), model: Some(empty()) };
        nothing.kept(&SourceCounts::default())
    }

    /// Fills in the empty headers. It iterates over them, because a lookup per header would cost a hash of its name.
    pub(super) fn fill(mut self, headers: &mut HeaderMap, mut id: HeaderValue) {
        for (name, value) in headers.iter_mut() {
            match name.as_str() {
                "x-vecho-cache" => *value = HeaderValue::from_static(self.outcome.label()),
                "x-vecho-sources" => swap(value, &mut self.sources),
                "x-vecho-tokens" => swap(value, &mut self.tokens),
                "openai-model" => {
                    if let Some(model) = &mut self.model {
                        swap(value, model);
                    }
                }
                "x-request-id" => swap(value, &mut id),
                _ => {}
            }
        }
        if self.model.is_none() {
            headers.remove(MODEL);
        }
    }

    /// Writes the headers into those of an upstream response. The upstream's own model name stays unless it is too
    /// long.
    pub(super) fn write(self, headers: &mut HeaderMap) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE, HeaderValue::from_static(self.outcome.label()));
        headers.insert(SOURCES, self.sources);
        headers.insert(TOKENS, self.tokens);
        if headers.get(MODEL).is_some_and(|model| model.len() > MAX_MODEL_BYTES) {
            headers.remove(MODEL);
        }
        if let Some(model) = self.model {
            headers.entry(MODEL).or_insert(model);
        }
    }
}

/// Marks a response that passed through unchanged.
pub(super) fn mark_bypass(headers: &mut HeaderMap, cause: &BypassCause) {
    // If another vecho upstream has marked a fallback answer, that mark is more important and stays.
    if !marks_fallback(headers) {
        headers.insert(CACHE, HeaderValue::from_static(Outcome::Bypass.label()));
    }
    headers.insert(REASON, header_text(&cause.header_text()));
}

/// Adds the reason for a fallback answer.
pub(super) fn tell_fallback(headers: &mut HeaderMap, measure: &str) {
    headers.insert(FALLBACK, header_text(measure));
}

/// Adds the number of inputs that were too long and were cut, if there are any.
pub(super) fn mark_cut(headers: &mut HeaderMap, cut: usize) {
    if cut > 0 {
        headers.insert(CUT, HeaderValue::from(cut));
    }
}

/// Returns a model name as a header value, or `None` if it is too long or has invalid characters.
fn model_header(model: &str) -> Option<HeaderValue> {
    if model.len() <= MAX_MODEL_BYTES { HeaderValue::from_str(model).ok() } else { None }
}

/// Returns text as a header value, or an empty value if it has invalid characters.
fn header_text(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
