//! Which headers cross the proxy, in which direction.

use http::header::{self, HeaderMap, HeaderName};

/// Headers of one connection (RFC 9110, section 7.6.1), and those that hyper writes itself.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Headers of an embeddings request that its call gets anew or that mean the exchange with vecho, and those that speak
/// for the very bytes of the client's body. The call's body is another one, and several calls may come of one request:
/// under one idempotency key a service would answer the second with the vectors of the first.
const REWRITTEN: [HeaderName; 11] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::ACCEPT_ENCODING,
    header::EXPECT,
    header::CACHE_CONTROL,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("repr-digest"),
];

/// Where a caller's key stands. It goes up unless vecho sends its own in its place.
pub(super) const KEY_HEADERS: [HeaderName; 3] =
    [header::AUTHORIZATION, HeaderName::from_static("api-key"), HeaderName::from_static("x-api-key")];

/// Prefixes of what the service says about one call; good on a miss, wrong on a hit.
const CALL_PREFIXES: [&str; 2] = ["openai-", "x-ratelimit-"];

/// How many headers an answer of ours adds to those of a call.
const OWN_HEADERS: usize = 8;

/// Whether a header belongs to one connection.
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(&name.as_str())
}

/// Takes out what belongs to one connection, also what `connection` names.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    for name in named_by_connection(headers).iter().map(HeaderName::as_str).chain(HOP_BY_HOP) {
        headers.remove(name);
    }
}

fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok()).collect()
}

/// The headers of an embeddings request that go up with the call made for it: all but those of the connection, of
/// the body (which is written anew) and of vecho itself.
pub fn forwardable(request: &HeaderMap, key_is_ours: bool) -> HeaderMap {
    let named = named_by_connection(request);
    let stays = |name: &HeaderName| {
        is_hop_by_hop(name)
            || REWRITTEN.contains(name)
            || name.as_str().starts_with("x-vecho-")
            || named.contains(name)
            || (key_is_ours && KEY_HEADERS.contains(name))
    };
    let mut headers = HeaderMap::with_capacity(request.len() + 1);
    for (name, value) in request.iter().filter(|(name, _)| !stays(name)) {
        headers.append(name.clone(), value.clone());
    }
    headers
}

/// What of a call's answer is shown to the callers it was made for.
pub fn shown_on_misses(reply: &HeaderMap) -> HeaderMap {
    filtered(reply, |name| name == "x-request-id" || CALL_PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
}

/// What of an error is shown: everything, but for the connection's and the edge's own.
pub fn shown_on_errors(reply: &HeaderMap) -> HeaderMap {
    let edge = ["set-cookie", "alt-svc", "strict-transport-security", "content-length"];
    let mut headers = reply.clone();
    strip_hop_by_hop(&mut headers);
    filtered(&headers, |name| !edge.contains(&name))
}

fn filtered(headers: &HeaderMap, shown: impl Fn(&str) -> bool) -> HeaderMap {
    // With room for what an answer adds: a map that grows puts every name in once more.
    let mut kept = HeaderMap::with_capacity(headers.len() + OWN_HEADERS);
    for (name, value) in headers.iter().filter(|(name, _)| shown(name.as_str())) {
        kept.append(name.clone(), value.clone());
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().expect("a value"))).collect()
    }

    #[test]
    fn what_connection_names_goes_with_it() {
        let mut all = headers(&[("connection", "keep-alive, X-Odd"), ("x-odd", "1"), ("te", "x"), ("accept", "*/*")]);
        strip_hop_by_hop(&mut all);
        assert_eq!(all, headers(&[("accept", "*/*")]));
    }

    #[test]
    fn our_own_controls_do_not_go_up() {
        let all = headers(&[("x-vecho-namespace", "n"), ("authorization", "b"), ("host", "h"), ("user-agent", "u")]);
        assert_eq!(forwardable(&all, false), headers(&[("authorization", "b"), ("user-agent", "u")]));
    }

    #[test]
    fn what_speaks_for_the_bytes_of_the_body_does_not_go_up() {
        let all =
            headers(&[("idempotency-key", "k"), ("content-digest", "d"), ("content-length", "5"), ("x-any", "1")]);
        assert_eq!(forwardable(&all, false), headers(&[("x-any", "1")]));
    }

    #[test]
    fn a_callers_key_does_not_go_up_where_vecho_sends_its_own() {
        let all = headers(&[("authorization", "b"), ("api-key", "k"), ("x-api-key", "k"), ("openai-project", "p")]);
        assert_eq!(forwardable(&all, true), headers(&[("openai-project", "p")]));
    }

    #[test]
    fn cookies_and_transport_headers_reach_no_one() {
        let all = headers(&[("set-cookie", "c"), ("alt-svc", "h3"), ("retry-after", "1"), ("x-request-id", "r")]);
        assert_eq!(shown_on_errors(&all), headers(&[("retry-after", "1"), ("x-request-id", "r")]));
        assert_eq!(shown_on_misses(&all), headers(&[("x-request-id", "r")]));
    }
}
