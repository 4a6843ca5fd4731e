//! The keys of a job's requests. The functions of live requests read them.

use http::{HeaderMap, Method, Uri};

use super::lines::RequestLine;
use crate::config::Config;
use crate::flow::space_key;
use crate::key::Key;
use crate::proxy::{CallerToken, path_model, read_origin};
use crate::upstream::{RouteKind, classify_path};
use crate::wire::{EmbedRequest, read_request};

/// Settings that determine a request's keys, together with the request.
#[derive(Clone, Debug)]
pub struct KeySettings {
    /// The configuration of the target instance.
    pub config: Config,
    /// The headers of its callers.
    pub headers: HeaderMap,
}

/// One request of a job with the keys of its inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchSample {
    /// Path of the request.
    pub url: String,
    /// Body of the request.
    pub body: String,
    /// Keys of the inputs in their order.
    pub keys: Vec<Key>,
    /// Key of their space.
    pub space: Key,
}

/// A parsed request.
pub(super) struct BatchLine<'a> {
    pub(super) request: EmbedRequest<'a>,
    pub(super) space: Key,
    pub(super) keys: Vec<Key>,
}

impl KeySettings {
    /// Returns an embeddings request to this path with its keys, or the reason why it is not cached.
    pub fn sample(&self, url: &str, body: &str) -> Result<BatchSample, String> {
        let body = serde_json::from_str(body).map_err(|error| error.to_string())?;
        let line = RequestLine { custom_id: String::new(), method: None, url: url.to_owned(), body };
        let keyed = self.read(&line)?;
        Ok(BatchSample { url: line.url.clone(), body: body.get().to_owned(), keys: keyed.keys, space: keyed.space })
    }

    pub(super) fn read<'a>(&self, line: &RequestLine<'a>) -> Result<BatchLine<'a>, String> {
        let url: Uri = line.url.parse().map_err(|_| "its url is not one")?;
        let token = CallerToken::described(&self.config, &self.headers);
        let origin = read_origin(&self.config, &url, &self.headers, token).map_err(|error| error.to_string())?;
        let kind = classify_path(origin.uri.path());
        if kind == RouteKind::Other || line.method.as_deref().is_some_and(|method| method != Method::POST.as_str()) {
            return Err("it is no request for embeddings".to_owned());
        }
        let request = read_request(line.body.get().as_bytes(), &self.config.cache.extra_fields, path_model(kind))
            .map_err(|cause| format!("such a request is not cached ({})", cause.header_text()))?;
        let space = space_key(&origin.scope, &origin.uri, &request.space);
        let keys = request.inputs.iter().map(|input| input.key(&space)).collect();
        Ok(BatchLine { request, space, keys })
    }
}

impl BatchLine<'_> {
    /// Returns the requested length of the vectors.
    pub(super) fn asked(&self) -> Option<usize> {
        self.request.space.dimensions.map(|dimension| dimension as usize)
    }
}
