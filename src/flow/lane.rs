//! Which misses may travel in one call: those that nothing but their inputs tells apart.

use std::sync::Arc;

use http::HeaderValue;
use http::header::CONTENT_TYPE;

use super::request::Request;
use crate::key::{KeyBuilder, Tag};
use crate::upstream::{Lane, Terms, forwardable};
use crate::wire::Base64;

/// Request headers that differ from call to call and mean nothing for the answer; they do not keep misses apart.
const NOISE: [&str; 14] = [
    "accept",
    "accept-language",
    "baggage",
    "date",
    "origin",
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

/// Prefixes of such headers: the SDKs' notes about themselves, and a browser's.
const NOISE_PREFIXES: [&str; 2] = ["x-stainless-", "sec-"];

impl Request<'_> {
    /// The lane of this request's misses: one space, one credential, and whatever else a call has only one of.
    pub(super) fn lane(&self) -> Lane {
        let (request, origin) = (&self.ask.request, &self.ask.origin);
        let encoding = self.upstream_encoding();
        let mut id = KeyBuilder::new(None);
        id.part(Tag::Scope, self.space.as_bytes())
            .part(Tag::Scope, origin.credential.as_bytes())
            .part(Tag::Encoding, encoding.name().as_bytes())
            .part(Tag::Control, request.kind().name().as_bytes());
        if let Some(user) = &request.user {
            id.part(Tag::User, user.as_bytes());
        }
        let mut headers = forwardable(origin.headers, self.config.upstream.api_key.is_some());
        for (name, value) in headers.iter().filter(|(name, _)| !is_noise(name.as_str())) {
            id.part(Tag::HeaderName, name.as_str().as_bytes()).part(Tag::HeaderValue, value.as_bytes());
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let terms = Terms {
            uri: origin.uri.clone(),
            headers,
            space: request.space.clone(),
            encoding,
            user: request.user.clone(),
            dimension: self.lessons.dimension(request.space.dimensions.map(|dimensions| dimensions as usize)),
            base64: self.known_base64(),
        };
        Lane { id: id.finish(), terms: Arc::new(terms) }
    }

    /// What base64 that comes back is measured against: what was asked, or what numbers have shown.
    fn known_base64(&self) -> Base64 {
        let asked = self.ask.request.space.dimensions.map(|dimensions| dimensions as usize);
        let shown = || self.lessons.identity().map(|identity| identity.dimension);
        if self.speaks_f32() { Base64::Trusted } else { asked.or_else(shown).map_or(Base64::Unproven, Base64::Proven) }
    }
}

fn is_noise(name: &str) -> bool {
    NOISE.contains(&name) || NOISE_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}
