//! Decides which misses may share one call: those that differ in nothing but their inputs.

use std::sync::Arc;

use http::HeaderValue;
use http::header::{ACCEPT_ENCODING, CONTENT_TYPE};

use super::model_key;
use super::request::Request;
use crate::key::{KeyBuilder, Tag};
use crate::upstream::{Lane, LaneProperties, forwardable, offered_codings};
use crate::wire::{Base64, RequestForm};

/// Request headers that differ from call to call and do not affect the answer. Misses may share a call
/// although these differ.
const NOISE: [&str; 13] = [
    "accept",
    "accept-language",
    "baggage",
    "date",
    "priority",
    "referer",
    "traceparent",
    "tracestate",
    "user-agent",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

/// Prefixes of such headers: metadata of the SDKs, and of browsers.
const NOISE_PREFIXES: [&str; 2] = ["x-stainless-", "sec-"];

impl Request<'_> {
    /// Returns the lane of this request's misses: one space, one credential, and one of everything else that
    /// a call has once.
    pub(super) fn lane(&self) -> Lane {
        let (request, origin) = (&self.job.request, &self.job.origin);
        // A call for several requests sends a list, so single inputs and lists share a lane.
        let form = RequestForm { encoding: self.upstream_encoding(), is_single: false, ..request.form };
        let mut id = KeyBuilder::new(None);
        id.part(Tag::Scope, self.space.key.as_bytes())
            .part(Tag::Scope, origin.credential.as_bytes())
            .part(Tag::Encoding, &form.to_bytes())
            .part(Tag::Control, request.kind().name().as_bytes());
        // A call has only one `user`, so requests of different users never share it.
        if let Some(user) = &request.user {
            id.part(Tag::User, user.as_bytes());
        }
        let mut headers = forwardable(origin.headers, self.context().config.upstream.api_key.is_some());
        // Any other header may change the answer, so requests that differ in it need separate calls.
        for (name, value) in headers.iter().filter(|(name, _)| !is_noise(name.as_str())) {
            id.part(Tag::HeaderName, name.as_str().as_bytes()).part(Tag::HeaderValue, value.as_bytes());
        }
        let plain = HeaderValue::from_static("application/json");
        let content_type = origin.headers.get(CONTENT_TYPE).cloned().unwrap_or_else(|| plain.clone());
        if content_type != plain {
            id.part(Tag::HeaderName, CONTENT_TYPE.as_str().as_bytes());
            id.part(Tag::HeaderValue, content_type.as_bytes());
        }
        // `forwardable` leaves out `content-type` with the other headers of the body.
        headers.insert(CONTENT_TYPE, content_type);
        // Not a part of the id: vecho decodes the answer, so callers with other codings share calls.
        if let Some(offer) = offered_codings(&self.context().config.upstream, origin.headers) {
            headers.insert(ACCEPT_ENCODING, offer);
        }
        let properties = LaneProperties {
            uri: origin.uri.clone(),
            headers,
            space: request.space.clone(),
            model: model_key(&origin.uri, &request.space),
            encoding: form.encoding.meaning(),
            form,
            user: request.user.clone(),
            asked_dimension: self.asked_dimension(),
            known_dimension: self.known_dimension(),
            base64: self.known_base64(),
            is_known: self.speaks_f32,
        };
        Lane { id: id.finish(), properties: Arc::new(properties) }
    }

    fn asked_dimension(&self) -> Option<usize> {
        self.job.request.space.dimensions.map(|dimensions| dimensions as usize)
    }

    /// Returns the known dimension of vectors of this space, if the request asks for a dimension.
    fn known_dimension(&self) -> Option<usize> {
        self.asked_dimension().and_then(|_| self.space.space_state.known_dimension())
    }

    /// Returns what is known of the upstream's base64: it is trusted, or it is checked against a dimension. That is the
    /// one asked for, or the one that earlier answers had.
    fn known_base64(&self) -> Base64 {
        let shown = || self.space.space_state.identity().map(|identity| identity.dimension);
        if self.speaks_f32 {
            Base64::Trusted
        } else {
            let asked = self.job.request.space.asked_dimension();
            asked.or_else(shown).map_or(Base64::Unproven, Base64::Proven)
        }
    }
}

fn is_noise(name: &str) -> bool {
    NOISE.contains(&name) || NOISE_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}
