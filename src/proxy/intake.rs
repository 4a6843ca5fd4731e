//! Derives from the head of a request its caller, its scope and its upstream address.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName};
use http::uri::PathAndQuery;
use http::{Uri, request};

use super::controls::{NAMESPACE, namespace};
use super::tokens::CallerToken;
use crate::config::{CallerIdentity, Config, Scope, UpstreamTarget};
use crate::flow::{RequestOrigin, join_headers, scope_key};
use crate::key::{Key, KeyBuilder, ProcessSecret, Tag};
use crate::upstream::{RouteKind, UriTooLong, may_hold_secret, named_by_connection, upstream_uri};
use crate::wire::{Bypass, Coding, PathModel, content_codings};

/// Reads the caller, the scope and the upstream address of a request. Its controls must already be checked. A token
/// whose claims name the caller stands for the credential headers.
pub fn read_origin<'a>(
    config: &Config,
    uri: &Uri,
    headers: &'a HeaderMap,
    token: Option<CallerToken>,
) -> Result<RequestOrigin<'a>, UriTooLong> {
    let uri = target_uri(config, uri)?;
    let namespace = namespace(headers);
    let scope_of = |credential: &Key| scope_key(&config.cache, credential, namespace, headers);
    if let Some(CallerToken { credential, owner, is_accepted }) = token {
        return Ok(RequestOrigin {
            uri,
            credential,
            // A token that the upstream has not accepted may be forged, so it takes no share of its owner's limits.
            caller: if is_accepted { owner.key } else { credential },
            owner: Some(owner),
            namespace,
            scope: scope_of(&owner.key),
            // In this scope, entries are served without any credential.
            needs_acceptance: config.cache.scope != Scope::Proxy,
            headers,
        });
    }
    let credential = credential_key(config, headers);
    // A caller that names several providers is still one caller, as it is for the admission limit.
    let caller = if config.cache.key_headers.is_empty() { credential } else { caller_key(config, headers).finish() };
    Ok(RequestOrigin {
        uri,
        // With vecho's own key, all callers are the same to the upstream.
        credential: if config.upstream.api_key.is_some() { KeyBuilder::new(None).finish() } else { credential },
        caller,
        owner: None,
        namespace,
        scope: scope_of(&credential),
        needs_acceptance: needs_acceptance(config),
        headers,
    })
}

/// Starts the hash of all credential headers in their configured order, which identify a caller.
fn caller_key<'a>(config: &'a Config, headers: &HeaderMap) -> KeyBuilder<'a> {
    let mut key = KeyBuilder::new(config.cache.key_secret.as_ref());
    join_headers(&mut key, &config.auth.credential_headers, headers);
    key
}

/// Returns the hash of the credential headers and of the key headers. Those may select a provider, and the acceptance
/// by one provider is not valid for another.
pub(super) fn credential_key(config: &Config, headers: &HeaderMap) -> Key {
    let mut key = caller_key(config, headers);
    join_headers(&mut key, &config.cache.key_headers, headers);
    key.finish()
}

/// Returns true if stored vectors require that the upstream has accepted the credential.
pub(super) fn needs_acceptance(config: &Config) -> bool {
    config.cache.scope == Scope::Shared && config.upstream.api_key.is_none()
}

/// Returns the upstream's address for a request as it is in keys.
pub(super) fn target_uri(config: &Config, uri: &Uri) -> Result<Uri, UriTooLong> {
    match (&config.upstream.identity, &config.upstream.target) {
        (Some(identity), UpstreamTarget::Http(_)) => below(identity, uri),
        _ => called_uri(config, uri),
    }
}

/// Returns the address that a request which passes through is sent to.
pub(super) fn called_uri(config: &Config, uri: &Uri) -> Result<Uri, UriTooLong> {
    match &config.upstream.target {
        UpstreamTarget::Http(base) => below(base, uri),
        UpstreamTarget::Mock => below(&Uri::from_static("mock://vecho"), uri),
    }
}

fn below(base: &Uri, uri: &Uri) -> Result<Uri, UriTooLong> {
    let root = PathAndQuery::from_static("/");
    upstream_uri(base, uri.path_and_query().unwrap_or(&root))
}

/// Returns the key of a request in the reply cache: caller, path and body. The key never outlives the process, so a
/// cheap hash suffices. Under every scope each credential has its own replies, and differences in the order of headers
/// create separate entries. Both cost only memory and never cause wrong answers.
pub(super) fn answer_key(config: &Config, secret: &ProcessSecret, head: &request::Parts, body: &[u8]) -> Key {
    let mut key = KeyBuilder::of_process(secret);
    let reads_tokens = config.auth.identity == CallerIdentity::Token;
    // One pass over the headers is cheaper than a look-up for each configured name.
    for (name, value) in &head.headers {
        // A token is accepted together with all headers that may hold a credential.
        if chooses_answer(config, name) || (reads_tokens && may_hold_secret(name)) {
            key.part(Tag::HeaderName, name.as_str().as_bytes()).part(Tag::HeaderValue, value.as_bytes());
        }
    }
    let path = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    key.part(Tag::Upstream, path.as_bytes()).part(Tag::Body, body);
    key.finish()
}

/// Returns true if the response may depend on this header.
fn chooses_answer(config: &Config, name: &HeaderName) -> bool {
    config.auth.credential_headers.contains(name) || config.cache.key_headers.contains(name) || *name == NAMESPACE
}

/// Removes headers that select the answer and that `connection` names. They are not forwarded, so they must not be part
/// of a key: the caller gets the answer that the upstream gives without them.
pub(super) fn drop_unsent(config: &Config, headers: &mut HeaderMap) {
    for name in named_by_connection(headers) {
        if config.cache.key_headers.contains(&name) || config.auth.credential_headers.contains(&name) {
            headers.remove(name);
        }
    }
}

/// Returns whether the path names the model.
pub const fn path_model(kind: RouteKind) -> PathModel {
    match kind {
        RouteKind::Deployment => PathModel::Yes,
        RouteKind::Embeddings | RouteKind::Other => PathModel::No,
    }
}

/// Returns the content codings of a JSON body, or the reason why the body is not read.
pub(super) fn body_codings(headers: &HeaderMap) -> Result<Vec<Coding>, Bypass> {
    let (mut kind, mut is_coded) = (None, false);
    for (name, value) in headers {
        if *name == CONTENT_TYPE {
            kind.get_or_insert(value.as_bytes());
        } else if *name == CONTENT_ENCODING {
            is_coded = true;
        }
    }
    let codings = if is_coded { content_codings(headers).ok_or(Bypass::ContentEncoding)? } else { Vec::new() };
    if kind.is_some_and(is_json) { Ok(codings) } else { Err(Bypass::ContentType) }
}

/// Returns true if a content type is JSON, regardless of its parameters.
fn is_json(content_type: &[u8]) -> bool {
    let kind = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    // `+json` is the structured syntax suffix of RFC 6839 (section 3.1).
    let ends_in = |end: &[u8]| kind.len() >= end.len() && kind[kind.len() - end.len()..].eq_ignore_ascii_case(end);
    kind.eq_ignore_ascii_case(b"application/json") || ends_in(b"+json")
}
