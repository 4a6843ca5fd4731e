//! `--upstream mock:`: the mock embedder as the upstream, for demos and for the CI of applications.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, CONTENT_TYPE, HeaderMap, HeaderValue, ORIGIN,
};
use http::{Method, StatusCode};

use crate::config::{Config, Live};
use crate::flow::Tokenizer;
use crate::flow::mock;
use crate::process::clock::Clock;
use crate::upstream::{InProcess, InProcessRequest, RouteKind, UpstreamReply, classify_path};
use crate::vector::COMPONENT_BYTES;
use crate::wire::{Bypass, EmbedRequest, Input, PathModel, Rendering, envelope, read_request};

/// Upstream that answers embeddings requests with mock vectors.
pub(super) struct MockUpstream {
    pub(super) live: Live,
    pub(super) clock: Clock,
    pub(super) tokenizer: Arc<Tokenizer>,
    /// Maximum size in bytes of all vectors in one response.
    pub(super) max_vector_bytes: u64,
}

impl MockUpstream {
    pub(super) fn embedder(self) -> InProcess {
        // The client calls this on the blocking pool, so long computations delay no connection.
        Arc::new(move |request| match classify_path(request.path) {
            _ if is_preflight(request) => preflight(request.headers),
            RouteKind::Other => {
                let message = "The built-in mock upstream serves embeddings only.";
                reply(StatusCode::NOT_FOUND, envelope(message, "invalid_request_error", None, Some("not_found")))
            }
            kind => {
                let mut reply = self.embed(kind, request.body);
                if request.headers.contains_key(ORIGIN) {
                    reply.headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
                }
                reply
            }
        })
    }

    fn embed(&self, kind: RouteKind, body: &[u8]) -> UpstreamReply {
        let config = self.live.load();
        let path_model = if kind == RouteKind::Deployment { PathModel::Yes } else { PathModel::No };
        match read_request(body, &config.cache.extra_fields, path_model) {
            Ok(request) if vector_bytes(&config, &request) > self.max_vector_bytes => {
                too_large(&request, self.max_vector_bytes)
            }
            Ok(request) => reply(StatusCode::OK, answer(&config, &request, self.tokens(&request)).to_bytes()),
            Err(cause) => {
                let message = explanation(cause.reason);
                reply(StatusCode::BAD_REQUEST, envelope(&message, "invalid_request_error", Some("input"), None))
            }
        }
    }

    /// Counts the tokens of a request. Estimates them if the tokenizer's tables do not fit into memory.
    fn tokens(&self, request: &EmbedRequest<'_>) -> u64 {
        let inputs = request.inputs.iter().map(Input::to_owned_input).collect();
        let counts = self.tokenizer.count_blocking(inputs, self.clock.now_ms());
        let estimate = || request.inputs.iter().map(|input| input.estimated_tokens() as u64).sum();
        counts.map_or_else(estimate, |counts| counts.into_iter().map(u64::from).sum())
    }
}

fn dimension(config: &Config, request: &EmbedRequest<'_>) -> usize {
    let asked = request.space.dimensions.map(|dimensions| dimensions as usize);
    asked.or_else(|| mock::usual_dimension(request.space.model_name())).unwrap_or(config.fallback.mock_dimensions)
}

fn vector_bytes(config: &Config, request: &EmbedRequest<'_>) -> u64 {
    (request.inputs.len() * dimension(config, request) * COMPONENT_BYTES) as u64
}

fn too_large(request: &EmbedRequest<'_>, max_bytes: u64) -> UpstreamReply {
    let inputs = request.inputs.len();
    let message = format!(
        "The built-in mock upstream cannot embed {inputs} inputs at once: too large an input array, since their vectors \
         take more than {max_bytes} bytes, the limit for one answer (a twentieth of memory.limit_mb)."
    );
    reply(StatusCode::PAYLOAD_TOO_LARGE, envelope(&message, "invalid_request_error", Some("input"), Some("too_large")))
}

fn answer(config: &Config, request: &EmbedRequest<'_>, prompt_tokens: u64) -> Rendering {
    let model = if request.space.model_name().is_empty() { "mock" } else { request.space.model_name() };
    let dimension = dimension(config, request);
    let count = u32::try_from(request.inputs.len()).expect("a request must have fewer than 2^32 inputs");
    Rendering {
        vectors: request.inputs.iter().map(|input| mock::vector(model, dimension, input).into()).collect(),
        slots: (0..count).collect(),
        encoding: request.encoding,
        model: model.to_owned(),
        prompt_tokens,
        members: Vec::new(),
        mocks: Vec::new(),
    }
}

fn explanation(bypass: Bypass) -> String {
    let cause = match bypass {
        Bypass::NotJson | Bypass::LoneSurrogate => "the body is not valid JSON",
        Bypass::DuplicateKey => "a field stands twice",
        Bypass::UnknownField => "a field is unknown",
        Bypass::WrongType => "a field has the wrong type or a value out of range",
        Bypass::NoInput => "`input` and `model` are needed",
        Bypass::EmptyInput => "an input is empty",
        Bypass::TooManyInputs => "there are too many inputs",
        Bypass::TooLarge => "it takes more memory than there is",
        Bypass::ContentType | Bypass::ContentEncoding => "the body is not plain JSON",
        Bypass::UnreadableAnswer | Bypass::UnsteadyModel | Bypass::OtherPath => "there is no answer",
    };
    format!("The built-in mock upstream cannot embed this: {cause}.")
}

fn reply(status: StatusCode, body: Bytes) -> UpstreamReply {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    UpstreamReply { status, headers, body }
}

/// Returns true for a CORS preflight request.
fn is_preflight(request: &InProcessRequest<'_>) -> bool {
    let headers = request.headers;
    *request.method == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Allows every web page to send any request.
fn preflight(request: &HeaderMap) -> UpstreamReply {
    let mut headers = HeaderMap::new();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, DELETE, OPTIONS"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    // `*` does not cover `authorization`.
    for names in request.get_all(ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.append(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    UpstreamReply { status: StatusCode::NO_CONTENT, headers, body: Bytes::new() }
}
