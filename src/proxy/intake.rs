//! From the head of a request to who asks, under which scope, and where it would go.

use http::HeaderMap;
use http::uri::PathAndQuery;
use http::{Uri, request};

use super::controls::{BadControl, read_namespace};
use crate::config::{Config, Scope, UpstreamTarget};
use crate::flow::{Origin, scope_key};
use crate::key::{Key, KeyBuilder, Tag};
use crate::upstream::{RouteKind, forwardable, upstream_uri};
use crate::wire::{Bypass, PathModel};

/// Who asks, before it is known whether anything has to go up.
pub(super) struct Asker {
    /// The hash of the caller's credential.
    pub credential: Key,
    /// Who may share what is stored for this caller.
    pub scope: Key,
    /// Whether the upstream has to have accepted the credential first.
    pub must_be_vouched: bool,
}

/// Reads who asks from the headers.
pub(super) fn read_asker(config: &Config, headers: &HeaderMap) -> Result<Asker, BadControl> {
    let credential = credential_key(config, headers);
    let namespace = read_namespace(headers)?;
    let scope = scope_key(config.cache.scope, &credential, namespace, config.cache.key_secret.as_ref());
    let must_be_vouched = config.cache.scope == Scope::Shared && config.upstream.api_key.is_none();
    Ok(Asker { credential, scope, must_be_vouched })
}

impl Asker {
    /// Adds where the request would go and with which headers.
    pub(super) fn origin(self, config: &Config, uri: &Uri, headers: &HeaderMap) -> Origin {
        Origin {
            uri: target_uri(config, uri),
            credential: self.credential,
            scope: self.scope,
            must_be_vouched: self.must_be_vouched,
            headers: forwardable(headers),
        }
    }
}

/// The hash of all headers that together are a credential, in their configured order.
fn credential_key(config: &Config, headers: &HeaderMap) -> Key {
    let mut key = KeyBuilder::new(config.cache.key_secret.as_ref());
    for name in &config.auth.credential_headers {
        for value in headers.get_all(name) {
            key.part(Tag::HeaderName, name.as_str().as_bytes()).part(Tag::HeaderValue, value.as_bytes());
        }
    }
    key.finish()
}

/// The upstream's address for a request of ours.
pub(super) fn target_uri(config: &Config, uri: &Uri) -> Uri {
    let root = PathAndQuery::from_static("/");
    let path = uri.path_and_query().unwrap_or(&root);
    match &config.upstream.target {
        UpstreamTarget::Http(base) => upstream_uri(base, path),
        UpstreamTarget::Mock => upstream_uri(&Uri::from_static("mock://vecho"), path),
    }
}

/// The hash under which a rendered answer to this request is kept.
pub(super) fn answer_key(asker: &Asker, uri: &Uri, body: &[u8]) -> Key {
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let mut key = KeyBuilder::new(None);
    key.part(Tag::Scope, asker.scope.as_bytes()).part(Tag::Upstream, path.as_bytes()).part(Tag::Body, body);
    key.finish()
}

/// Whether the path names the model.
pub(super) const fn path_model(kind: RouteKind) -> PathModel {
    match kind {
        RouteKind::Deployment => PathModel::Yes,
        RouteKind::Embeddings | RouteKind::Other => PathModel::No,
    }
}

/// Why a body need not be read: it is not JSON, or not plain.
pub(super) fn unreadable_head(head: &request::Parts) -> Option<Bypass> {
    let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
    let encoded = text(http::header::CONTENT_ENCODING).is_some_and(|value| !value.eq_ignore_ascii_case("identity"));
    let is_json = text(http::header::CONTENT_TYPE).is_some_and(|value| {
        let kind = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        kind == "application/json" || kind.ends_with("+json")
    });
    if encoded {
        Some(Bypass::ContentEncoding)
    } else if is_json {
        None
    } else {
        Some(Bypass::ContentType)
    }
}
