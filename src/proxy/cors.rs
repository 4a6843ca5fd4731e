//! CORS: stores the headers that let a web page read a response, for responses without an upstream call.
//!
//! Only the upstream decides which origins may read. A header that it sent for one origin is never used for another
//! one, unless it is `*`.

use std::sync::Arc;

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName, HeaderValue, ORIGIN, VARY,
};
use http::{Method, request};

use super::finished::Finished;
use crate::cache::bounded::{Bounded, Entry, MapBounds};
use crate::key::{Key, KeyBuilder, ProcessSecret, Tag};

/// Bounds of the cache.
const BOUNDS: MapBounds = MapBounds { max_bytes: 256 * 1024, max_entries: Some(256) };
/// Typical bytes of a header and its place in a map.
const HEADER_BYTES: usize = 160;

/// The upstream's CORS headers by origin and path.
pub(super) struct CorsCache {
    entries: Bounded<CorsHeaders>,
    secret: ProcessSecret,
}

/// The CORS headers of one response; empty if no web page may read it.
#[derive(Clone)]
struct CorsHeaders(Arc<HeaderMap>);

/// A request from a web page.
pub(super) struct CorsRequest {
    origin: HeaderValue,
    /// Key of the headers for exactly this origin.
    exact: Key,
    /// Key of the headers for every origin.
    any: Key,
}

impl Entry for CorsHeaders {
    fn weight_bytes(&self) -> u64 {
        let bytes: usize = self.0.values().map(|value| value.len() + HEADER_BYTES).sum();
        (bytes + size_of::<HeaderMap>()) as u64
    }
}

impl CorsCache {
    pub(super) fn new() -> Self {
        Self { entries: Bounded::new(BOUNDS, 1), secret: ProcessSecret::new() }
    }

    /// Returns the CORS request for these headers, if a web page sent it.
    pub(super) fn request(&self, path: &str, headers: &HeaderMap) -> Option<Box<CorsRequest>> {
        let origin = headers.get(ORIGIN)?.clone();
        let key = |origins: &mut dyn Iterator<Item = &HeaderValue>| {
            let mut key = KeyBuilder::of_process(&self.secret);
            // The upstream may allow an origin at some of its paths only.
            key.part(Tag::Upstream, path.as_bytes());
            for origin in origins {
                key.part(Tag::HeaderValue, origin.as_bytes());
            }
            key.finish()
        };
        let (exact, any) = (key(&mut headers.get_all(ORIGIN).iter()), key(&mut std::iter::empty()));
        Some(Box::new(CorsRequest { origin, exact, any }))
    }

    /// Returns the CORS request that a preflight asks about.
    pub(super) fn preflight(&self, head: &request::Parts) -> Option<Box<CorsRequest>> {
        let is_preflight = head.method == Method::OPTIONS && head.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        if is_preflight { self.request(head.uri.path(), &head.headers) } else { None }
    }

    /// Returns true if the upstream has answered this origin, or every origin, at this path.
    pub(super) fn knows(&self, request: &CorsRequest) -> bool {
        self.find(request).is_some()
    }

    /// Stores the headers of an upstream response to this request, or adds the stored ones to a response of our own.
    pub(super) fn complete(&self, request: &CorsRequest, finished: &mut Finished) {
        let status = finished.response.status();
        let headers = finished.response.headers_mut();
        if !finished.is_upstreams {
            self.fill(request, headers);
        } else if status.is_success() || headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
            // Some servers omit the headers only on errors.
            self.learn(request, headers);
        }
    }

    /// Stores the headers of a preflight response. Those of an actual response are more specific and are not replaced.
    pub(super) fn learn_preflight(&self, request: &CorsRequest, finished: &Finished) {
        let headers = finished.response.headers();
        let allowed = headers.get(ACCESS_CONTROL_ALLOW_ORIGIN);
        let known = self.find(request);
        let is_known = known.is_some_and(|known| known.0.get(ACCESS_CONTROL_ALLOW_ORIGIN) == allowed);
        if finished.is_upstreams && allowed.is_some() && !is_known {
            self.learn(request, headers);
        }
    }

    fn find(&self, request: &CorsRequest) -> Option<CorsHeaders> {
        self.entries.get(&request.exact).or_else(|| self.entries.get(&request.any))
    }

    fn learn(&self, request: &CorsRequest, headers: &HeaderMap) {
        // An answer without these headers is stored too, because it shows that this origin may not read.
        let mut kept = HeaderMap::new();
        for (name, value) in headers.iter().filter(|(name, _)| is_kept(name)) {
            kept.append(name.clone(), value.clone());
        }
        let allows_all = kept.get(ACCESS_CONTROL_ALLOW_ORIGIN).is_some_and(|allowed| allowed == "*");
        let (key, other) = if allows_all { (request.any, request.exact) } else { (request.exact, request.any) };
        // Only the newest headers count: a single origin may have replaced `*`, or the reverse.
        self.entries.remove(&other);
        self.entries.insert(key, CorsHeaders(Arc::new(kept)));
    }

    /// Adds the headers that the upstream sent for this origin earlier.
    fn fill(&self, request: &CorsRequest, headers: &mut HeaderMap) {
        if request.may_read(headers) {
            return;
        }
        // These headers come from the response to another origin's call.
        let others: Vec<HeaderName> = headers.keys().filter(|name| is_kept(name) && **name != VARY).cloned().collect();
        for name in others {
            headers.remove(name);
        }
        for (name, value) in self.find(request).iter().flat_map(|known| known.0.iter()) {
            headers.append(name.clone(), value.clone());
        }
    }
}

impl CorsRequest {
    /// Returns true if a response with these headers lets this request's page read it.
    fn may_read(&self, headers: &HeaderMap) -> bool {
        headers.get(ACCESS_CONTROL_ALLOW_ORIGIN).is_some_and(|allowed| allowed == "*" || *allowed == self.origin)
    }
}

/// Returns true for the headers that determine read access to a response, without those of a preflight.
fn is_kept(name: &HeaderName) -> bool {
    let of_preflight = [ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_MAX_AGE];
    let others = ["cross-origin-resource-policy", "timing-allow-origin", "vary"];
    let name_text = name.as_str();
    (name_text.starts_with("access-control-") && !of_preflight.contains(name)) || others.contains(&name_text)
}

#[cfg(test)]
mod tests {
    use http::{Response, StatusCode};

    use super::*;
    use crate::observe::metrics::Outcome;
    use crate::proxy::ReplyBody;

    const A: &str = "https://a.example";
    const B: &str = "https://b.example";

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn from(cache: &CorsCache, origin: &'static str) -> CorsRequest {
        *cache.request("/v1/embeddings", &headers(&[("origin", origin)])).expect("it has an origin")
    }

    fn finished(status: u16, is_upstreams: bool, with: &[(&'static str, &'static str)]) -> Finished {
        let mut response = Response::new(ReplyBody::whole(bytes::Bytes::new()));
        *response.status_mut() = StatusCode::from_u16(status).expect("it is a status");
        *response.headers_mut() = headers(with);
        Finished { is_upstreams, ..Finished::new(response, Outcome::Hit) }
    }

    /// Returns the origin that a hit allows.
    fn allowed(cache: &CorsCache, origin: &'static str) -> Option<String> {
        let mut hit = finished(200, false, &[]);
        cache.complete(&from(cache, origin), &mut hit);
        let allowed = hit.response.headers().get(ACCESS_CONTROL_ALLOW_ORIGIN);
        allowed.map(|value| value.to_str().expect("it is text").to_owned())
    }

    fn hear(cache: &CorsCache, origin: &'static str, status: u16, with: &[(&'static str, &'static str)]) {
        cache.complete(&from(cache, origin), &mut finished(status, true, with));
    }

    #[test]
    fn a_header_for_one_origin_is_not_given_to_another() {
        let cache = CorsCache::new();
        hear(&cache, A, 200, &[("access-control-allow-origin", A), ("vary", "origin")]);
        assert_eq!((allowed(&cache, A).as_deref(), allowed(&cache, B)), (Some(A), None));
        assert!(cache.knows(&from(&cache, A)) && !cache.knows(&from(&cache, B)));
        let elsewhere = cache.request("/embeddings", &headers(&[("origin", A)])).expect("it has an origin");
        assert!(!cache.knows(&elsewhere));
    }

    #[test]
    fn a_wildcard_origin_serves_all_until_the_upstream_names_an_origin() {
        let cache = CorsCache::new();
        hear(&cache, A, 200, &[("access-control-allow-origin", "*")]);
        assert_eq!(allowed(&cache, B).as_deref(), Some("*"));
        hear(&cache, B, 200, &[("access-control-allow-origin", B)]);
        assert_eq!((allowed(&cache, A), allowed(&cache, B).as_deref()), (None, Some(B)));
    }

    #[test]
    fn an_origin_without_access_is_remembered() {
        let cache = CorsCache::new();
        hear(&cache, A, 200, &[]);
        assert!(cache.knows(&from(&cache, A)));
        assert_eq!(allowed(&cache, A), None);
    }

    #[test]
    fn an_error_without_cors_headers_changes_nothing() {
        let cache = CorsCache::new();
        hear(&cache, A, 200, &[("access-control-allow-origin", A)]);
        hear(&cache, A, 500, &[]);
        assert_eq!(allowed(&cache, A).as_deref(), Some(A));
    }

    #[test]
    fn errors_of_a_shared_call_do_not_expose_the_other_origin() {
        let cache = CorsCache::new();
        let mut shared = finished(400, false, &[("access-control-allow-origin", B), ("vary", "accept")]);
        cache.complete(&from(&cache, A), &mut shared);
        assert_eq!(shared.response.headers(), &headers(&[("vary", "accept")]));
        assert!(!cache.knows(&from(&cache, A)));
    }

    #[test]
    fn a_preflight_stores_the_origin_but_not_its_own_headers() {
        let cache = CorsCache::new();
        let answer = finished(204, true, &[("access-control-allow-origin", A), ("access-control-max-age", "600")]);
        cache.learn_preflight(&from(&cache, A), &answer);
        let mut hit = finished(200, false, &[]);
        cache.complete(&from(&cache, A), &mut hit);
        assert_eq!(hit.response.headers(), &headers(&[("access-control-allow-origin", A)]));
        hear(&cache, A, 200, &[("access-control-allow-origin", A), ("access-control-expose-headers", "x")]);
        cache.learn_preflight(&from(&cache, A), &answer);
        let mut hit = finished(200, false, &[]);
        cache.complete(&from(&cache, A), &mut hit);
        assert!(hit.response.headers().contains_key("access-control-expose-headers"));
    }

    #[test]
    fn stored_origins_are_bounded() {
        let cache = CorsCache::new();
        for number in 0..2_000 {
            let origin = HeaderValue::from_str(&format!("https://{number}.example")).expect("it is a value");
            let request = cache.request("/v1/embeddings", &HeaderMap::from_iter([(ORIGIN, origin)]));
            cache.complete(&request.expect("it has an origin"), &mut finished(200, true, &[]));
        }
        assert!(cache.entries.len() <= 256);
    }
}
