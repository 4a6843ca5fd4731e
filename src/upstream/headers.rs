//! Headers that cross the proxy, by direction.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

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

/// Headers of an embeddings request that are not forwarded. The call gets its own values, or they concern the
/// exchange with vecho, or they describe the exact bytes of the client's body. The call has a different body, and one
/// request may become several calls. With the same idempotency key, a service would answer the second call with the
/// vectors of the first.
const REWRITTEN: [HeaderName; 12] = [
    header::HOST,
    header::CONTENT_ENCODING,
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

/// Headers that may hold a caller's key. The key is forwarded unless vecho sends its own instead.
pub(super) const KEY_HEADERS: [HeaderName; 3] =
    [header::AUTHORIZATION, HeaderName::from_static("api-key"), HeaderName::from_static("x-api-key")];

/// Further headers that may hold a secret of the caller for the upstream. They do not follow a redirect
/// to another origin.
pub(super) const SECRETS_ELSEWHERE: [HeaderName; 4] = [
    header::COOKIE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("x-goog-api-key"),
    HeaderName::from_static("ocp-apim-subscription-key"),
];

/// Headers of a call's answer that describe the service's own body or origin. The caller gets another body, from vecho.
const OF_THE_SERVICE: [&str; 20] = [
    "accept-ranges",
    "age",
    "alt-svc",
    "cache-control",
    "content-digest",
    "content-encoding",
    "content-length",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "digest",
    "etag",
    "expires",
    "last-modified",
    "pragma",
    "repr-digest",
    "set-cookie",
    "set-cookie2",
    "strict-transport-security",
];

/// Header that marks an answer of another vecho.
const CACHE_MARK: &str = "x-vecho-cache";

/// Maximum length of a header value of a call that is shown.
const MAX_SHOWN_BYTES: usize = 4 * 1024;

/// Maximum number of a call's header lines that are shown. Popular clients accept 100 in total.
const MAX_SHOWN_LINES: usize = 88;

/// Number of headers that an answer of ours adds to those of a call.
const OWN_HEADERS: usize = 8;

/// Parts of the names of headers that hold secrets, or say by which secret a caller was recognised.
const SECRET_WORDS: [&str; 9] =
    ["auth", "cert", "cookie", "credential", "key", "secret", "session", "signature", "token"];

/// Returns true if a header may hold a credential for the upstream, judged by its name.
pub fn may_hold_secret(name: &HeaderName) -> bool {
    let is_sent = || !is_hop_by_hop(name) && !REWRITTEN.contains(name);
    SECRET_WORDS.iter().any(|word| name.as_str().contains(word)) && is_sent()
}

/// Returns true if a header belongs to one connection.
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(&name.as_str())
}

/// Removes the headers of one connection, and those that `connection` names.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // The names are read before the loop, because it removes `connection` itself.
    for name in named_by_connection(headers).iter().map(HeaderName::as_str).chain(HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Returns the names in `connection`: the headers that a proxy must not forward. Most requests name none.
pub fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok()).collect()
}

/// Returns the headers of an embeddings request that are sent with its call. Excluded are those of the connection, of
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
        // `append` keeps every line of a repeated header.
        headers.append(name.clone(), value.clone());
    }
    headers
}

/// Returns the headers of a call's answer that its callers get with vecho's answer. Excluded are those of the
/// connection, of the service's own body and origin, and of another vecho.
pub fn shown_on_misses(reply: &HeaderMap) -> HeaderMap {
    let named = named_by_connection(reply);
    let is_shown = |name: &HeaderName| {
        !is_hop_by_hop(name)
            && !OF_THE_SERVICE.contains(&name.as_str())
            && !name.as_str().starts_with("x-vecho-")
            && !named.contains(name)
    };
    let shown = reply.iter().filter(|(name, value)| value.len() <= MAX_SHOWN_BYTES && is_shown(name));
    collected(shown.take(MAX_SHOWN_LINES), reply.len())
}

/// Returns true if another vecho marks its answer as a mock or as stale.
pub fn marks_fallback(headers: &HeaderMap) -> bool {
    let is_fallback = |mark: &[u8]| mark.eq_ignore_ascii_case(b"mock") || mark.eq_ignore_ascii_case(b"stale");
    // Intermediaries may join repeated headers with commas (RFC 9110, section 5.3).
    let marks = headers.get_all(CACHE_MARK).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    marks.map(<[u8]>::trim_ascii).any(is_fallback)
}

/// Returns the headers of an error that its caller gets. Excluded are those of the connection and of the service's
/// edge.
pub fn shown_on_errors(reply: &HeaderMap) -> HeaderMap {
    let edge = ["set-cookie", "alt-svc", "strict-transport-security", "content-length"];
    let mut headers = reply.clone();
    strip_hop_by_hop(&mut headers);
    collected(headers.iter().filter(|(name, _)| !edge.contains(&name.as_str())), headers.len())
}

/// Returns true if a request carries a credential: in a usual header for a key, or in one of `others`.
pub fn carries_credential(request: &HeaderMap, others: &[HeaderName]) -> bool {
    KEY_HEADERS.iter().chain(&SECRETS_ELSEWHERE).chain(others).any(|name| request.contains_key(name))
}

fn collected<'a>(shown: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>, most: usize) -> HeaderMap {
    // Extra capacity for the headers that an answer adds: a map that grows rehashes every name.
    let mut kept = HeaderMap::with_capacity(most + OWN_HEADERS);
    for (name, value) in shown {
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
    fn headers_listed_in_connection_are_removed() {
        let mut all = headers(&[("connection", "keep-alive, X-Odd"), ("x-odd", "1"), ("te", "x"), ("accept", "*/*")]);
        strip_hop_by_hop(&mut all);
        assert_eq!(all, headers(&[("accept", "*/*")]));
    }

    #[test]
    fn vecho_headers_are_not_forwarded() {
        let all = headers(&[("x-vecho-namespace", "n"), ("authorization", "b"), ("host", "h"), ("user-agent", "u")]);
        assert_eq!(forwardable(&all, false), headers(&[("authorization", "b"), ("user-agent", "u")]));
    }

    #[test]
    fn headers_that_describe_the_body_bytes_are_not_forwarded() {
        let all =
            headers(&[("idempotency-key", "k"), ("content-digest", "d"), ("content-length", "5"), ("x-any", "1")]);
        assert_eq!(forwardable(&all, false), headers(&[("x-any", "1")]));
    }

    #[test]
    fn the_callers_key_is_not_forwarded_if_vecho_has_its_own() {
        let all = headers(&[("authorization", "b"), ("api-key", "k"), ("x-api-key", "k"), ("openai-project", "p")]);
        assert_eq!(forwardable(&all, true), headers(&[("openai-project", "p")]));
    }

    #[test]
    fn cookies_and_transport_headers_are_never_forwarded_to_clients() {
        let all = headers(&[("set-cookie", "c"), ("alt-svc", "h3"), ("retry-after", "1"), ("x-request-id", "r")]);
        assert_eq!(shown_on_errors(&all), headers(&[("retry-after", "1"), ("x-request-id", "r")]));
        assert_eq!(shown_on_misses(&all), shown_on_errors(&all));
    }

    #[test]
    fn a_miss_forwards_headers_about_the_call_but_not_about_the_connection() {
        let shown = headers(&[
            ("access-control-allow-origin", "*"),
            ("apim-request-id", "a"),
            ("openai-model", "m"),
            ("server", "uvicorn"),
            ("x-litellm-response-cost", "0.1"),
            ("x-ms-region", "west"),
        ]);
        let mut all = headers(&[
            ("connection", "close, x-odd"),
            ("x-odd", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("x-vecho-cache", "hit"),
            ("x-vecho-tokens", "billed=1"),
        ]);
        for name in OF_THE_SERVICE {
            all.insert(name, HeaderValue::from_static("1"));
        }
        all.extend(shown.clone());
        assert_eq!(shown_on_misses(&all), shown);
    }

    #[test]
    fn a_miss_omits_header_values_and_lines_that_clients_would_reject() {
        let mut all = headers(&[("x-short", "1")]);
        all.insert("x-long", "v".repeat(MAX_SHOWN_BYTES + 1).parse().expect("a value"));
        all.insert("x-full", "v".repeat(MAX_SHOWN_BYTES).parse().expect("a value"));
        assert_eq!(shown_on_misses(&all).keys().collect::<Vec<_>>(), ["x-short", "x-full"]);
        for _ in 0..200 {
            all.append("x-many", HeaderValue::from_static("1"));
        }
        assert_eq!(shown_on_misses(&all).len(), MAX_SHOWN_LINES);
    }

    #[test]
    fn mock_and_stale_marks_are_recognised_in_any_case_among_all_values() {
        let marked = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CACHE_MARK, HeaderValue::from_static(value));
            }
            marks_fallback(&headers)
        };
        for values in
            [&["mock"][..], &["stale"], &["Mock"], &["hit", "mock"], &["hit, STALE "], &["\tmock\t"], &["a,,mock"]]
        {
            assert!(marked(values), "{values:?}");
        }
        for values in [&[][..], &["hit"], &["miss", "partial"], &["mocks"], &["not mock"], &["bypass, "]] {
            assert!(!marked(values), "{values:?}");
        }
    }
}
