//! One embeddings request as the flow sees it, and the keys that follow from it.

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, Uri};

use super::RequestContext;
use crate::config::{CacheConfig, Scope};
use crate::key::{Key, KeyBuilder, Tag};
use crate::learned::{AcceptedCredential, TokenOwner};
use crate::upstream::{Charge, normal_path};
use crate::wire::{EmbedRequest, Space};

/// One embeddings request with everything that decides its answer.
pub struct EmbedJob<'a> {
    /// Its configuration, deadline, controls and trace.
    pub context: RequestContext,
    /// The parsed body.
    pub request: EmbedRequest<'a>,
    /// The original bytes of the body.
    pub body: Bytes,
    /// Memory reservation for the body. A fetch holds it as long as it holds the body.
    pub charge: Charge,
    /// The caller, and the upstream's address for it.
    pub origin: RequestOrigin<'a>,
}

/// The caller of a request, and the upstream's address for it.
#[derive(Clone, Debug)]
pub struct RequestOrigin<'a> {
    /// The upstream's address for this request.
    pub uri: Uri,
    /// Hash of the credential that is sent to the upstream.
    pub credential: Key,
    /// Hash of the credential that the caller sent, without the headers that select a provider. For a token that the
    /// upstream has accepted, it is the hash of its owner.
    pub caller: Key,
    /// Owner of the bearer token, if its claims name the caller.
    pub owner: Option<TokenOwner>,
    /// The caller's namespace, if it has one.
    pub namespace: Option<&'a [u8]>,
    /// Key of the callers that share stored vectors with this one.
    pub scope: Key,
    /// True if stored vectors are served only after the upstream has accepted the credential.
    pub needs_acceptance: bool,
    /// The headers of the request.
    pub headers: &'a HeaderMap,
}

impl RequestOrigin<'_> {
    /// Returns the credential, address and model that the upstream must have accepted before stored vectors of `space`
    /// are served. Returns `None` if no such check is configured.
    pub fn accepted_credential(&self, space: &Space) -> Option<AcceptedCredential> {
        self.needs_acceptance.then(|| {
            let mut subject = KeyBuilder::new(None);
            // An upstream may accept a key for one deployment or model and refuse it for another.
            subject.part(Tag::Upstream, address(&self.uri).as_bytes());
            subject.part(Tag::Model, space.model_name().as_bytes());
            AcceptedCredential { credential: self.credential, subject: subject.finish() }
        })
    }
}

/// Returns the key of the callers that share entries. A namespace and the headers that choose the answering model
/// narrow the scope; nothing widens it.
pub fn scope_key(cache: &CacheConfig, credential: &Key, namespace: Option<&[u8]>, headers: &HeaderMap) -> Key {
    let mut key = KeyBuilder::new(cache.key_secret.as_ref());
    // The name of the scope is part of the key, so entries of one scope are never found under another.
    match cache.scope {
        Scope::Credential => key.part(Tag::Scope, b"credential").part(Tag::Scope, credential.as_bytes()),
        Scope::Proxy => key.part(Tag::Scope, b"proxy"),
        Scope::Shared => key.part(Tag::Scope, b"shared"),
    };
    if let Some(namespace) = namespace {
        key.part(Tag::Namespace, namespace);
    }
    join_headers(&mut key, &cache.key_headers, headers);
    key.finish()
}

/// Adds the values of some headers in the order of `names`; an absent header adds nothing.
pub fn join_headers(key: &mut KeyBuilder, names: &[HeaderName], headers: &HeaderMap) {
    for name in names {
        for value in headers.get_all(name) {
            key.part(Tag::HeaderName, name.as_str().as_bytes()).part(Tag::HeaderValue, value.as_bytes());
        }
    }
}

/// Returns the key of everything that shapes a vector except its input: scope, upstream and space.
pub fn space_key(scope: &Key, uri: &Uri, space: &Space) -> Key {
    let mut key = KeyBuilder::new(None);
    key.part(Tag::Scope, scope.as_bytes()).part(Tag::Upstream, address(uri).as_bytes());
    space.join_key(&mut key);
    key.finish()
}

/// Returns the key of address and space, which is the same for all callers.
pub fn model_key(uri: &Uri, space: &Space) -> Key {
    space_key(&KeyBuilder::new(None).finish(), uri, space)
}

/// Returns an address as its `Display` writes it, with a normalised path. It is built by hand because each
/// request needs it.
fn address(uri: &Uri) -> String {
    let mut text = String::with_capacity(128);
    if let Some(scheme) = uri.scheme_str() {
        text.extend([scheme, "://"]);
    }
    text.push_str(uri.authority().map_or("", Authority::as_str));
    // `//v1/embeddings/` is the same address as `/v1/embeddings` and must have the same key.
    text.push_str(&normal_path(uri.path()));
    if let Some(query) = uri.query() {
        text.extend(["?", query]);
    }
    text
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::config::{Config, Secret};

    fn space(model: &str, dimensions: Option<u32>) -> Space {
        Space { model: Some(model.to_owned()), dimensions, ..Space::default() }
    }

    fn cache(pairs: &[(&str, &str)]) -> CacheConfig {
        Config::from_pairs(pairs).expect("must be free of faults").cache
    }

    fn uri(text: &str) -> Uri {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_is_written_as_it_displays() {
        for text in [
            "http://h/v1",
            "https://h:8443/v1/embeddings?api-version=2&x=",
            "http://h",
            "https://user@h:2/x?y",
            "/only/path?q",
            "/",
        ] {
            assert_eq!(address(&uri(text)), uri(text).to_string());
        }
    }

    #[test]
    fn equivalent_spellings_of_a_path_give_one_address() {
        for text in ["http://h//v1/embeddings?x=1", "http://h/v1/embeddings/?x=1", "http://h/v1//embeddings//?x=1"] {
            assert_eq!(address(&uri(text)), "http://h/v1/embeddings?x=1");
        }
        assert_ne!(address(&uri("http://h/v1/embeddings?x=/")), address(&uri("http://h/v1/embeddings?x=")));
    }

    #[test]
    fn scope_keys_follow_the_configured_scope_and_namespace() {
        let (a, b) = (KeyBuilder::new(None).finish(), KeyBuilder::new(Some(&Secret::new("b"))).finish());
        let (cache, headers) = (cache(&[]), HeaderMap::new());
        let key = |scope, credential: &Key, namespace: Option<&[u8]>| {
            scope_key(&CacheConfig { scope, ..cache.clone() }, credential, namespace, &headers)
        };
        assert_ne!(key(Scope::Credential, &a, None), key(Scope::Credential, &b, None));
        assert_eq!(key(Scope::Shared, &a, None), key(Scope::Shared, &b, None));
        assert_eq!(key(Scope::Proxy, &a, None), key(Scope::Proxy, &b, None));
        assert_ne!(key(Scope::Proxy, &a, None), key(Scope::Shared, &a, None));
        assert_ne!(key(Scope::Shared, &a, Some(b"n")), key(Scope::Shared, &a, None));
        assert_ne!(key(Scope::Shared, &a, Some(b"")), key(Scope::Shared, &a, None));
    }

    #[test]
    fn key_headers_are_part_of_the_scope() {
        let (cache, credential) = (cache(&[("cache.key_headers", "x-one,x-two")]), KeyBuilder::new(None).finish());
        let key = |said: &[(&'static str, &'static str)]| {
            let named =
                said.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            scope_key(&cache, &credential, None, &named.collect())
        };
        let all = [
            key(&[]),
            key(&[("x-one", "a")]),
            key(&[("x-one", "b")]),
            key(&[("x-two", "a")]),
            key(&[("x-one", "a"), ("x-two", "b")]),
            key(&[("x-one", "b"), ("x-two", "a")]),
        ];
        for (place, one) in all.iter().enumerate() {
            assert!(!all[..place].contains(one), "{place}");
        }
        assert_eq!(key(&[("x-other", "a")]), all[0]);
        assert_eq!(key(&[("x-two", "b"), ("x-one", "a")]), all[4], "the order in the request means nothing");
    }

    #[test]
    fn everything_that_shapes_a_vector_is_in_the_key() {
        let scope = KeyBuilder::new(None).finish();
        let base = space_key(&scope, &uri("http://h/v1/embeddings"), &space("m", None));
        let mut with_task = space("m", None);
        with_task.extras.insert("task".to_owned(), "\"x\"".to_owned().into());
        let others = [
            space_key(&scope, &uri("http://h/v1/embeddings"), &space("m", Some(256))),
            space_key(&scope, &uri("http://h/v1/embeddings"), &space("n", None)),
            space_key(&scope, &uri("http://h/v1/embeddings?api-version=2"), &space("m", None)),
            space_key(&scope, &uri("http://other/v1/embeddings"), &space("m", None)),
            space_key(&scope, &uri("http://h/v1/embeddings"), &Space::default()),
            space_key(&scope, &uri("http://h/v1/embeddings"), &with_task),
            space_key(&base, &uri("http://h/v1/embeddings"), &space("m", None)),
        ];
        for (place, other) in others.iter().enumerate() {
            assert_ne!(base, *other, "{place}");
            assert!(!others[..place].contains(other), "{place}");
        }
    }
}
