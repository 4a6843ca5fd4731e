//! Decides which misses may share one call: those that differ in nothing but their inputs.

use std::sync::Arc;

use super::model_key;
use super::request::Request;
use crate::config::Priority;
use crate::key::{Key, KeyBuilder, Tag};
use crate::learned::TokenOwner;
use crate::upstream::{Lane, LaneProperties, deployment, forwardable, offered_codings};
use crate::wire::{Base64, RequestForm};
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue};

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
    /// Returns the lane of this request's misses with a priority: one space, one credential, and one of everything else
    /// that a call has once.
    pub(super) fn lane(&self, priority: Priority) -> Lane {
        let (request, origin) = (&self.job.request, &self.job.origin);
        // A call for several requests sends a list, so single inputs and lists share a lane.
        let form = RequestForm { encoding: self.upstream_encoding(), is_single: false, ..request.form };
        let mut headers = forwardable(origin.headers, self.context().config.upstream.api_key.is_some());
        let plain = HeaderValue::from_static("application/json");
        // `forwardable` leaves out `content-type` with the other headers of the body.
        headers.insert(CONTENT_TYPE, origin.headers.get(CONTENT_TYPE).cloned().unwrap_or(plain));
        let id = self.lane_key(form, &headers, None);
        // Tokens of one owner are never sent for one another, but their calls meet the same limits.
        let owner = self.caller.owner.filter(|_| self.trusted);
        let learns_as = owner.map_or(id, |owner| self.lane_key(form, &headers, Some(owner)));
        // Not a part of the id: vecho decodes the answer, so callers with other codings share calls.
        if let Some(offer) = offered_codings(&self.context().config.upstream, origin.headers) {
            headers.insert(ACCEPT_ENCODING, offer);
        }
        let properties = LaneProperties {
            uri: origin.uri.clone(),
            headers,
            space: request.space.clone(),
            priced_as: request.space.model.clone().or_else(|| deployment(origin.uri.path())).unwrap_or_default(),
            // The header was checked: it is visible ASCII.
            namespace: origin.namespace.map(|name| String::from_utf8_lossy(name).into_owned()),
            model: model_key(&origin.uri, &request.space),
            paced_as: self.paced_as(),
            encoding: form.encoding.meaning(),
            form,
            user: request.user.clone(),
            asked_dimension: self.asked_dimension(),
            known_dimension: self.known_dimension(),
            base64: self.known_base64(),
            is_known: self.speaks_f32,
        };
        // Calls of one priority never wait for inputs of the other.
        let id = id.extend(Tag::Control, priority.name().as_bytes());
        Lane { id, learns_as, properties: Arc::new(properties) }
    }

    /// Returns the priority of this request's calls.
    pub(super) fn priority(&self) -> Priority {
        let by_number = || {
            let is_bulk = self.job.request.inputs.len() >= self.context().config.priority.bulk_from;
            if is_bulk { Priority::Bulk } else { Priority::Interactive }
        };
        self.context().controls.priority.unwrap_or_else(by_number)
    }

    /// Returns the key of all calls that share the service's rate limits: those of one credential to one model.
    fn paced_as(&self) -> Key {
        let (request, origin) = (&self.job.request, &self.job.origin);
        let owner = self.caller.owner.filter(|_| self.trusted);
        let credential = owner.map_or(origin.credential, |owner| owner.key);
        let mut key = KeyBuilder::new(None);
        let host = origin.uri.authority().map_or("", Authority::as_str);
        key.part(Tag::Scope, credential.as_bytes())
            .part(Tag::Upstream, host.as_bytes())
            // The path may name a deployment.
            .part(Tag::Upstream, origin.uri.path().as_bytes())
            .part(Tag::Model, request.space.model_name().as_bytes());
        key.finish()
    }

    /// Returns the hash of everything that a call has once. `owner` takes the place of its token.
    fn lane_key(&self, form: RequestForm, headers: &HeaderMap, owner: Option<TokenOwner>) -> Key {
        let (request, origin) = (&self.job.request, &self.job.origin);
        let credential = owner.map_or(origin.credential, |owner| owner.key);
        let mut key = KeyBuilder::new(None);
        key.part(Tag::Scope, self.space.key.as_bytes())
            .part(Tag::Scope, credential.as_bytes())
            .part(Tag::Encoding, &form.to_bytes())
            .part(Tag::Control, request.kind().name().as_bytes());
        // A call has only one `user`, so requests of different users never share it.
        if let Some(user) = &request.user {
            key.part(Tag::User, user.as_bytes());
        }
        // Any other header may change the answer, so requests that differ in it need separate calls.
        let is_left_out = |name: &HeaderName| is_noise(name.as_str()) || (owner.is_some() && *name == AUTHORIZATION);
        for (name, value) in headers.iter().filter(|(name, _)| !is_left_out(name)) {
            key.part(Tag::HeaderName, name.as_str().as_bytes()).part(Tag::HeaderValue, value.as_bytes());
        }
        key.finish()
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
