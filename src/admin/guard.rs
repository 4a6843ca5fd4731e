//! Access control of the ops port.
//!
//! With `admin.token`, every route except probes, metrics and the files of the dashboard requires the token, also from
//! loopback. Without it, other hosts can read plain figures, and everything else requires a loopback peer. The address
//! of the peer decides; a header can only take rights away. A browser on this machine runs scripts of other sites. It
//! sends their `Origin`, and after DNS rebinding it sends the rebound name as `Host`, so both must name this machine.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, request};

use super::reply::Refusal;
use crate::config::Secret;

/// Header for the token if `Authorization` holds an application's credential, as in requests to explain.
pub const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-vecho-admin-token");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Requirement of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// No requirement: probes, metrics and the files of the dashboard.
    Open,
    /// The token if one is set, otherwise no requirement.
    Figures,
    /// The token if one is set, otherwise a loopback peer, a local `Host` and no foreign `Origin`.
    Private,
}

/// Extent of an answer with figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    /// Figures only, for callers without access to private routes.
    Figures,
    /// Figures, incidents and causes of failures.
    Full,
}

/// Access control with the hash of the token.
#[derive(Clone, Debug)]
pub struct Guard {
    token: Option<blake3::Hash>,
}

impl Guard {
    /// Creates a guard that requires `token`. An empty token counts as none.
    pub fn new(token: Option<&Secret>) -> Self {
        let token = token.map(Secret::reveal).filter(|token| !token.is_empty());
        Self { token: token.map(|token| blake3::hash(token.as_bytes())) }
    }

    pub(super) fn check(&self, access: Access, head: &request::Parts, peer: SocketAddr) -> Result<(), Refusal> {
        let allowed = match (access, self.token) {
            (Access::Open, _) | (Access::Figures, None) => Ok(()),
            (_, Some(token)) => check_token(token, &head.headers),
            (Access::Private, None) => check_place(head, peer),
        };
        let is_wrong_token = self.token.is_some() && given_tokens(&head.headers).next().is_some();
        allowed.map_err(|why| Refusal::Forbidden { why, is_wrong_token })
    }

    /// Returns true if `Authorization` holds the token.
    pub(super) fn is_token_in_authorization(&self, headers: &HeaderMap) -> bool {
        let given = headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes).filter_map(bearer);
        self.token.is_some_and(|token| given.into_iter().any(|given| blake3::hash(given) == token))
    }

    /// Returns how much a route with figures shows to this caller.
    pub(super) fn detail(&self, head: &request::Parts, peer: SocketAddr) -> Detail {
        match self.check(Access::Private, head, peer) {
            Ok(()) => Detail::Full,
            Err(_) => Detail::Figures,
        }
    }
}

/// Compares hashes in constant time, so the duration of the check tells nothing about the token.
fn check_token(token: blake3::Hash, headers: &HeaderMap) -> Result<(), &'static str> {
    let is_known = given_tokens(headers).any(|given| blake3::hash(given) == token);
    is_known.then_some(()).ok_or(
        "This route requires the token `admin.token`, as `Authorization: Bearer TOKEN` or `x-vecho-admin-token: TOKEN`.",
    )
}

/// Returns the values of both headers that can hold the token.
fn given_tokens(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let by_bearer = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes).and_then(bearer);
    let by_name = headers.get(TOKEN_HEADER).map(HeaderValue::as_bytes);
    [by_bearer, by_name].into_iter().flatten()
}

/// Checks the origin of a request if no token is set.
fn check_place(head: &request::Parts, peer: SocketAddr) -> Result<(), &'static str> {
    if !is_loopback(peer.ip()) {
        return Err(
            "This route answers only requests from its own machine. To use it from elsewhere, set `admin.token`.",
        );
    }
    if !is_local_host(&head.uri, &head.headers) {
        return Err("The Host of this request is not a name of this machine.");
    }
    check_page(&head.headers)
}

/// Rejects requests that a browser sends for a foreign page. A browser may omit `Origin`, as for an image, but it still
/// sends `sec-fetch-site`.
fn check_page(headers: &HeaderMap) -> Result<(), &'static str> {
    // Another port of this machine is `same-site`, so only `cross-site` is foreign.
    let is_foreign = |site: &HeaderValue| site.as_bytes().eq_ignore_ascii_case(b"cross-site");
    if !headers.contains_key(ORIGIN) && headers.get_all(SEC_FETCH_SITE).iter().any(is_foreign) {
        return Err("This request comes from a page that is not on this machine.");
    }
    if !headers.get_all(ORIGIN).iter().all(|origin| is_local_origin(origin.as_bytes())) {
        return Err("The Origin of this request is not on this machine.");
    }
    Ok(())
}

fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    // 7 is the length of `bearer `. Schemes are case-insensitive (RFC 9110, section 11.1).
    let (scheme, token) = authorization.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// Returns true if the request names a host and every host that it names is this machine.
fn is_local_host(uri: &Uri, headers: &HeaderMap) -> bool {
    // A target in absolute form also names a host (RFC 9112, section 3.2.2).
    let from_uri = uri.authority().map(|authority| authority.as_str().as_bytes());
    let from_headers = headers.get_all(HOST).iter().map(HeaderValue::as_bytes);
    let mut named = from_uri.into_iter().chain(from_headers).peekable();
    named.peek().is_some() && named.all(is_local_authority)
}

fn is_local_origin(origin: &[u8]) -> bool {
    let authority = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
    authority.is_some_and(is_local_authority)
}

/// Returns true if an authority (from `Host`, or from `Origin` after its scheme) names only this machine.
pub fn is_local_authority(authority: &[u8]) -> bool {
    let Ok(authority) = Authority::try_from(authority) else { return false };
    // Browsers send no user information in `Host` or `Origin`.
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host();
    let is_local = host.eq_ignore_ascii_case("localhost") || address(host).is_some_and(is_loopback);
    is_local && authority.as_str().strip_prefix(host).is_some_and(is_port)
}

/// Returns true if only a port follows the host. The parser accepts any text after `]`, as in `[::1]evil.example`.
fn is_port(after_host: &str) -> bool {
    let is_number = |port: &str| port.bytes().all(|digit| digit.is_ascii_digit()) && port.parse::<u16>().is_ok();
    after_host.is_empty() || after_host.strip_prefix(':').is_some_and(is_number)
}

fn address(host: &str) -> Option<IpAddr> {
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match bracketed {
        Some(host) => host.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse().ok(),
    }
}

/// Returns true for a loopback address, also for an IPv4-mapped IPv6 address.
pub(super) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEAR: &str = "127.0.0.1:50000";
    const FAR: &str = "10.1.2.3:50000";

    struct Case<'a> {
        access: Access,
        peer: &'a str,
        headers: &'a [(&'a str, &'a str)],
    }

    impl Case<'_> {
        fn allowed(&self, token: Option<&str>) -> bool {
            self.checked(token).is_ok()
        }

        fn checked(&self, token: Option<&str>) -> Result<(), Refusal> {
            let mut request = http::Request::builder().uri("/api/config");
            for (name, value) in self.headers {
                request = request.header(*name, *value);
            }
            let (head, ()) = request.body(()).expect("the request must be valid").into_parts();
            let guard = Guard::new(token.map(Secret::new).as_ref());
            guard.check(self.access, &head, self.peer.parse().expect("the peer must be an address"))
        }
    }

    fn private(peer: &str, headers: &[(&str, &str)]) -> bool {
        Case { access: Access::Private, peer, headers }.allowed(None)
    }

    fn with_token(peer: &str, headers: &[(&str, &str)]) -> bool {
        let of = |access| Case { access, peer, headers }.allowed(Some("s3cret"));
        assert_eq!(of(Access::Private), of(Access::Figures), "{headers:?}");
        of(Access::Private)
    }

    #[test]
    fn a_loopback_peer_with_a_local_host_has_access_if_no_token_is_set() {
        for host in ["localhost", "LocalHost:7862", "127.0.0.1:7862", "127.9.9.9", "[::1]", "[::1]:7862"] {
            assert!(private(NEAR, &[("host", host)]), "{host}");
            assert!(!with_token(NEAR, &[("host", host)]), "{host}");
        }
        assert!(private("[::1]:5", &[("host", "localhost")]));
        assert!(private("[::ffff:127.0.0.1]:5", &[("host", "localhost")]));
    }

    #[test]
    fn a_foreign_or_missing_host_has_no_access() {
        let hosts = [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.1.2.3",
            "[::2]",
            "::1",
            "evil@localhost",
            "0.0.0.0",
            "",
            "local host",
        ];
        for host in hosts {
            assert!(!private(NEAR, &[("host", host)]), "{host}");
        }
        assert!(!private(NEAR, &[]));
        assert!(!private(NEAR, &[("host", "localhost"), ("host", "evil.example")]));
    }

    #[test]
    fn only_a_port_may_follow_the_host() {
        let lies = [
            "[::1]evil.example",
            "[::1].evil.example",
            "[::1]:80evil.example",
            "[::1]7862",
            "[::1]:",
            "[::1]:99999",
            "[::1]:+80",
        ];
        for lie in lies {
            assert!(!private(NEAR, &[("host", lie)]), "{lie}");
            for scheme in ["http", "https"] {
                let origin = format!("{scheme}://{lie}");
                assert!(!private(NEAR, &[("host", "localhost"), ("origin", &origin)]), "{origin}");
            }
            let uri = format!("http://{lie}/api/config");
            if let Ok(request) = http::Request::get(&uri).header(HOST, "localhost").body(()) {
                let peer = NEAR.parse().expect("the peer must be an address");
                assert!(Guard::new(None).check(Access::Private, &request.into_parts().0, peer).is_err(), "{uri}");
            }
        }
    }

    #[test]
    fn a_remote_peer_has_no_access_under_any_host() {
        for peer in [FAR, "[::ffff:10.1.2.3]:5", "[2001:db8::1]:5", "[fe80::1]:5", "192.168.0.1:5", "0.0.0.0:5"] {
            for host in ["localhost", "127.0.0.1", "[::1]", "10.1.2.3", "evil.example"] {
                assert!(!private(peer, &[("host", host)]), "{peer} {host}");
                assert!(!with_token(peer, &[("host", host)]), "{peer} {host}");
                let figures = Case { access: Access::Figures, peer, headers: &[("host", host)] };
                assert!(figures.allowed(None), "{peer} {host}");
            }
        }
    }

    #[test]
    fn embedded_resources_of_foreign_pages_are_refused_even_without_an_origin() {
        for (site, allowed) in [("cross-site", false), ("same-site", true), ("same-origin", true), ("none", true)] {
            assert_eq!(private(NEAR, &[("host", "localhost"), ("sec-fetch-site", site)]), allowed, "{site}");
        }
        // The request goes from one name of this machine to another.
        let headers = [("host", "127.0.0.1"), ("origin", "http://localhost"), ("sec-fetch-site", "cross-site")];
        assert!(private(NEAR, &headers));
    }

    #[test]
    fn a_foreign_origin_has_no_access() {
        for origin in ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:7862"] {
            assert!(private(NEAR, &[("host", "localhost"), ("origin", origin)]), "{origin}");
        }
        for origin in
            ["null", "https://evil.example", "http://localhost.evil.example", "file://localhost", "localhost", ""]
        {
            assert!(!private(NEAR, &[("host", "localhost"), ("origin", origin)]), "{origin}");
        }
        let both = [("host", "localhost"), ("origin", "http://localhost"), ("origin", "http://evil.example")];
        assert!(!private(NEAR, &both));
    }

    #[test]
    fn the_token_gives_access_from_any_peer_host_and_origin() {
        for bearer in ["Bearer s3cret", "bearer s3cret", "BEARER  s3cret"] {
            let headers = [("authorization", bearer), ("host", "evil.example"), ("origin", "null")];
            assert!(with_token(FAR, &headers) && with_token(NEAR, &headers), "{bearer}");
        }
        let both = [("authorization", "Bearer sk-app"), ("x-vecho-admin-token", "s3cret")];
        assert!(with_token(FAR, &both) && with_token(NEAR, &both));
    }

    #[test]
    fn a_wrong_token_gives_no_access() {
        for wrong in ["Bearer s3cre", "Bearer s3crets", "Bearer ", "Basic s3cret", "s3cret", "Bearer", ""] {
            for peer in [NEAR, FAR] {
                assert!(!with_token(peer, &[("host", "localhost"), ("authorization", wrong)]), "{wrong}");
            }
        }
    }

    #[test]
    fn refusals_mention_a_wrong_token_only_if_one_was_sent() {
        for (name, text, is_told) in
            [("authorization", "Bearer s3cre", true), ("x-vecho-admin-token", "no", true), ("accept", "*/*", false)]
        {
            let case = Case { access: Access::Private, peer: FAR, headers: &[("host", "localhost"), (name, text)] };
            let message = case.checked(Some("s3cret")).expect_err("it must be refused").to_string();
            assert_eq!(message.contains("is not `admin.token`"), is_told, "{message}");
            let message = case.checked(None).expect_err("it must be refused").to_string();
            assert!(!message.contains("is not `admin.token`"), "there is none: {message}");
        }
    }

    #[test]
    fn an_unset_or_empty_token_never_gives_access() {
        let case = |bearer| Case { access: Access::Private, peer: FAR, headers: bearer };
        for token in [None, Some("")] {
            assert!(!case(&[("host", "localhost"), ("authorization", "Bearer ")]).allowed(token));
            assert!(!case(&[("host", "localhost"), ("authorization", "Bearer s3cret")]).allowed(token));
        }
    }

    #[test]
    fn open_routes_need_neither_token_nor_local_peer() {
        for token in [None, Some("s3cret")] {
            let headers = &[("host", "evil.example"), ("authorization", "Bearer wrong")];
            assert!(Case { access: Access::Open, peer: FAR, headers }.allowed(token));
        }
    }

    #[test]
    fn debug_output_hides_the_token() {
        let guard = Guard::new(Some(&Secret::new("s3cret")));
        assert!(!format!("{guard:?}").contains("s3cret"));
    }
}
