//! Redirects: those that a call follows, and those that are mapped for the caller.

use http::header::{HeaderMap, HeaderValue, LOCATION};
use http::uri::PathAndQuery;
use http::{StatusCode, Uri};
use url::{Position, Url};

use super::endpoint::{is_under, upstream_uri};

/// Returns the target of a 307 or 308 if the call may follow it. A redirect from HTTPS to HTTP is not followed.
pub(super) fn next_call(called: &Uri, status: StatusCode, headers: &HeaderMap) -> Option<Uri> {
    // Only these two keep the method and the body (RFC 9110, sections 15.4.8 and 15.4.9).
    if !matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT) {
        return None;
    }
    let (from, mut to) = resolve(called, headers.get(LOCATION)?)?;
    let is_web = to.scheme() == "https" || (to.scheme() == "http" && from.scheme() == "http");
    if !is_web || !to.username().is_empty() || to.password().is_some() {
        return None;
    }
    // A fragment is not part of the request target (RFC 9110, section 7.1).
    to.set_fragment(None);
    to.as_str().parse().ok()
}

/// Returns true if credentials for one address may be sent to the other. They must have the same host and port, or the
/// redirect must be an upgrade from HTTP to HTTPS on the same host with default ports.
pub(super) fn may_share_credentials(from: &Uri, to: &Uri) -> bool {
    // Calls without a redirect end here and parse no address.
    if from == to {
        return true;
    }
    let (Some(from), Some(to)) = (url_of(from), url_of(to)) else {
        return false;
    };
    let ports = (from.port_or_known_default(), to.port_or_known_default());
    let is_upgrade = from.scheme() == "http" && to.scheme() == "https" && (ports == (Some(80), Some(443)));
    from.host() == to.host() && (is_upgrade || is_same_origin(&from, &to))
}

/// Returns a `Location` of the upstream in the form that the caller needs, if it must be changed. An address of the
/// upstream becomes a path of this proxy, below the base path that the caller used. Every other address stays as it is.
///
/// `ours` is the path of the caller's request, `called` the corresponding address of the upstream.
pub fn location_for_caller(
    base: &Uri,
    ours: &PathAndQuery,
    called: &Uri,
    location: &HeaderValue,
) -> Option<HeaderValue> {
    let (from, to) = resolve(called, location)?;
    // Behind a proxy that terminates TLS, the upstream's servers may write http in their redirects.
    let lost_tls = from.scheme() == "https" && to.scheme() == "http" && from.host() == to.host() && to.port().is_none();
    // A redirect to the called address itself, such as one to HTTPS, would become a loop.
    let is_loop = from[Position::BeforePath..Position::AfterQuery] == to[Position::BeforePath..Position::AfterQuery];
    if !(is_same_origin(&from, &to) || lost_tls) || is_loop {
        return None;
    }
    let path = path_for_caller(base, ours, &to[Position::BeforePath..Position::AfterQuery])?;
    let text = format!("{path}{}", &to[Position::AfterQuery..]);
    HeaderValue::try_from(text).ok().filter(|mapped| mapped != location)
}

/// Returns a path of this proxy that stands for a path of the upstream.
fn path_for_caller(base: &Uri, ours: &PathAndQuery, theirs: &str) -> Option<String> {
    let base_path = base.path().trim_end_matches('/');
    let below = theirs.strip_prefix(base_path).filter(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
    let at_root = below.map(|rest| if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") });
    let at_v1 = below.map(|rest| format!("/v1{rest}"));
    let as_it_is = Some(theirs.to_owned());
    // The caller's own spelling comes first: the base path, `/v1`, or the root.
    let candidates = if is_under(ours.as_str(), base_path) {
        [as_it_is, at_v1, at_root]
    } else if is_under(ours.as_str(), "/v1") {
        [at_v1, as_it_is, at_root]
    } else {
        [at_root, as_it_is, at_v1]
    };
    // Each candidate is mapped back, so the caller's next request reaches exactly `theirs`.
    candidates.into_iter().flatten().find(|path| stands_for(base, path, theirs))
}

fn stands_for(base: &Uri, ours: &str, theirs: &str) -> bool {
    let path = ours.parse::<PathAndQuery>().ok();
    let uri = path.and_then(|path| upstream_uri(base, &path).ok());
    uri.as_ref().and_then(Uri::path_and_query).is_some_and(|path| path.as_str() == theirs)
}

/// Returns the called address and the target of a `Location` in its answer.
fn resolve(called: &Uri, location: &HeaderValue) -> Option<(Url, Url)> {
    let from = url_of(called)?;
    let to = from.join(std::str::from_utf8(location.as_bytes()).ok()?).ok()?;
    Some((from, to))
}

fn url_of(uri: &Uri) -> Option<Url> {
    uri.to_string().parse().ok()
}

fn is_same_origin(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && one.host() == other.host()
        && one.port_or_known_default() == other.port_or_known_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(called: &str, location: &str) -> Option<String> {
        let headers = HeaderMap::from_iter([(LOCATION, location.parse().expect("a value"))]);
        let called = called.parse().expect("an address");
        next_call(&called, StatusCode::TEMPORARY_REDIRECT, &headers).map(|uri| uri.to_string())
    }

    #[test]
    fn a_location_may_be_relative_to_the_address_that_was_called() {
        let called = "http://h:1/v1/embeddings?x=1";
        for (location, expected) in [
            ("/v2/embeddings", "http://h:1/v2/embeddings"),
            ("embeddings/", "http://h:1/v1/embeddings/"),
            ("//other/v1/e", "http://other/v1/e"),
            ("https://h/v1/embeddings#part", "https://h/v1/embeddings"),
            ("?y=2", "http://h:1/v1/embeddings?y=2"),
        ] {
            assert_eq!(next(called, location).as_deref(), Some(expected), "{location}");
        }
    }

    #[test]
    fn addresses_that_are_not_safe_to_follow_are_left_to_the_caller() {
        for location in [
            "http://h/v1/embeddings",
            "ftp://h/x",
            "https://user:password@h/x",
            "https://user@h/x",
            "data:,x",
            "http://[/",
        ] {
            assert_eq!(next("https://h/v1/embeddings", location), None, "{location}");
        }
        let moved = HeaderMap::from_iter([(LOCATION, HeaderValue::from_static("/x"))]);
        for status in [200, 201, 301, 302, 303] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(next_call(&Uri::from_static("http://h/"), status, &moved), None, "{status}");
        }
    }

    #[test]
    fn credentials_follow_redirects_only_to_the_same_host() {
        for (from, to, expected) in [
            ("http://h:1/a", "http://h:1/b", true),
            ("https://h/a", "https://H:443/b", true),
            ("http://h/a", "https://h/b", true),
            ("http://h:1/a", "http://h:2/b", false),
            ("http://h/a", "https://h:8443/b", false),
            ("http://h:1/a", "https://h/b", false),
            ("https://h/a", "http://h/b", false),
            ("https://h/a", "https://h.example/b", false),
            ("http://h/a", "https://g/b", false),
        ] {
            let uri = |text: &'static str| Uri::from_static(text);
            assert_eq!(may_share_credentials(&uri(from), &uri(to)), expected, "{from} {to}");
        }
    }

    /// Returns the location that a caller of `ours` receives; the same text if it does not change.
    fn seen(base: &str, ours: &str, location: &str) -> String {
        let (base, ours): (Uri, PathAndQuery) = (base.parse().expect("a base"), ours.parse().expect("a path"));
        let called = upstream_uri(&base, &ours).expect("it is short");
        let value = location.parse().expect("a value");
        let mapped = location_for_caller(&base, &ours, &called, &value).unwrap_or(value);
        mapped.to_str().expect("text").to_owned()
    }

    #[test]
    fn a_location_at_the_upstream_becomes_a_path_of_this_proxy() {
        for (base, ours, location, expected) in [
            ("http://h:1/v1", "/v1/models", "http://h:1/v1/models/", "/v1/models/"),
            ("http://h:1/v1", "/models", "http://h:1/v1/models/?x=1#part", "/models/?x=1#part"),
            ("http://h:1/v1", "/models", "/v1/models/", "/models/"),
            ("http://h:1", "/v1/models", "http://h:1/v1/models/", "/v1/models/"),
            ("https://h/api/openai", "/v1/files", "https://h:443/api/openai/files/7", "/v1/files/7"),
            ("https://h/api/openai", "/files", "https://h/api/openai/files/7", "/files/7"),
            ("https://h/api/openai", "/api/openai/files", "/api/openai/files/7", "/api/openai/files/7"),
            ("https://h/v1", "/v1/models", "http://h/v1/models/", "/v1/models/"),
        ] {
            assert_eq!(seen(base, ours, location), expected, "{base} {ours} {location}");
        }
    }

    #[test]
    fn locations_outside_the_upstream_are_unchanged() {
        for (base, ours, location) in [
            ("http://h:1/v1", "/v1/models", "http://h:2/v1/models/"),
            ("http://h:1/v1", "/v1/models", "https://elsewhere.example/login"),
            ("http://h/v1", "/v1/models", "https://h/v1/models"),
            ("https://h/v1", "/v1/models", "http://h/v1/models"),
            ("http://h:1/v1", "/v1/models", "http://h:1/login"),
            ("http://h:1", "/v1/models", "/v1/models/"),
            ("http://h:1", "/v1/models", "mailto:someone@h"),
        ] {
            assert_eq!(seen(base, ours, location), location, "{base} {ours}");
        }
    }
}
