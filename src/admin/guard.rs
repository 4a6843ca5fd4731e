//! Who may do what on the ops port: strangers look, neighbours on this machine and bearers of the token also change.
//!
//! A browser on this machine is a neighbour that runs strangers' scripts. Such a script cannot hide its `Origin`, and
//! when it comes by a name that was pointed at this machine afterwards (DNS rebinding), that name stands in `Host`.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, request};

use super::reply::Refusal;
use crate::config::Secret;

/// Carries the token where `Authorization` is an application's, as in what is to be explained.
pub const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-vecho-admin-token");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Nothing: scrapers and probes come by any address.
    Open,
    /// A local name in `Host` and no sign of a stranger's page, or the token.
    Local,
    /// The same from a loopback peer, or the token.
    Change,
}

/// Decides who may do what. Holds only the hash of the token.
#[derive(Clone, Debug)]
pub struct Guard {
    token: Option<blake3::Hash>,
}

impl Guard {
    /// A guard that lets bearers of `token` do everything; an empty token lets nobody.
    pub fn new(token: Option<&Secret>) -> Self {
        let token = token.map(Secret::reveal).filter(|token| !token.is_empty());
        Self { token: token.map(|token| blake3::hash(token.as_bytes())) }
    }

    pub(super) fn check(&self, access: Access, head: &request::Parts, peer: SocketAddr) -> Result<(), Refusal> {
        if access == Access::Open || self.knows_bearer(&head.headers) {
            return Ok(());
        }
        let is_wrong_token = given_tokens(&head.headers).next().is_some();
        check_place(access, head, peer).map_err(|why| Refusal::Forbidden { why, is_wrong_token })
    }

    /// Hashes are compared in constant time, so the answer's delay tells nothing about the token.
    fn knows_bearer(&self, headers: &HeaderMap) -> bool {
        let Some(token) = self.token else { return false };
        given_tokens(headers).any(|given| blake3::hash(given) == token)
    }
}

/// What may be the token, in either header.
fn given_tokens(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let by_bearer = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes).and_then(bearer);
    let by_name = headers.get(TOKEN_HEADER).map(HeaderValue::as_bytes);
    [by_bearer, by_name].into_iter().flatten()
}

/// What speaks against a request that brings no token: where it comes from.
fn check_place(access: Access, head: &request::Parts, peer: SocketAddr) -> Result<(), &'static str> {
    if !is_local_host(&head.uri, &head.headers) {
        return Err("The Host of this request is not a name of this machine.");
    }
    if access == Access::Change && !is_loopback(peer.ip()) {
        return Err("This answers only from this machine, or with the token `admin.token`.");
    }
    check_page(&head.headers)
}

/// A browser says which page a request comes from; where it leaves out the `Origin`, as for an image, it still says
/// whether that page is a stranger's.
fn check_page(headers: &HeaderMap) -> Result<(), &'static str> {
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
    let (scheme, token) = authorization.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// Every place that names the host must name this machine, and one must.
fn is_local_host(uri: &Uri, headers: &HeaderMap) -> bool {
    let from_uri = uri.authority().map(|authority| authority.as_str().as_bytes());
    let from_headers = headers.get_all(HOST).iter().map(HeaderValue::as_bytes);
    let mut named = from_uri.into_iter().chain(from_headers).peekable();
    named.peek().is_some() && named.all(is_local_authority)
}

fn is_local_origin(origin: &[u8]) -> bool {
    let authority = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
    authority.is_some_and(is_local_authority)
}

fn is_local_authority(authority: &[u8]) -> bool {
    let Ok(authority) = Authority::try_from(authority) else { return false };
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host();
    host.eq_ignore_ascii_case("localhost") || address(host).is_some_and(is_loopback)
}

fn address(host: &str) -> Option<IpAddr> {
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match bracketed {
        Some(host) => host.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse().ok(),
    }
}

fn is_loopback(address: IpAddr) -> bool {
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

    fn change(peer: &str, headers: &[(&str, &str)]) -> bool {
        Case { access: Access::Change, peer, headers }.allowed(Some("s3cret"))
    }

    fn look(peer: &str, headers: &[(&str, &str)]) -> bool {
        Case { access: Access::Local, peer, headers }.allowed(Some("s3cret"))
    }

    #[test]
    fn a_neighbour_by_a_local_name_may_change() {
        for host in ["localhost", "LocalHost:7862", "127.0.0.1:7862", "127.9.9.9", "[::1]", "[::1]:7862"] {
            assert!(change(NEAR, &[("host", host)]), "{host}");
        }
        assert!(change("[::1]:5", &[("host", "localhost")]));
        assert!(change("[::ffff:127.0.0.1]:5", &[("host", "localhost")]));
    }

    #[test]
    fn a_foreign_or_missing_host_may_neither_change_nor_look() {
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
            assert!(!change(NEAR, &[("host", host)]), "{host}");
            assert!(!look(NEAR, &[("host", host)]), "{host}");
        }
        assert!(!change(NEAR, &[]) && !look(NEAR, &[]));
        assert!(!change(NEAR, &[("host", "localhost"), ("host", "evil.example")]));
    }

    #[test]
    fn a_far_peer_may_look_by_a_local_name_and_not_change() {
        assert!(look(FAR, &[("host", "localhost")]));
        assert!(!change(FAR, &[("host", "localhost")]));
        assert!(!change("[::ffff:10.1.2.3]:5", &[("host", "localhost")]));
    }

    #[test]
    fn what_a_strangers_page_embeds_is_refused_even_without_an_origin() {
        for (site, allowed) in [("cross-site", false), ("same-site", true), ("same-origin", true), ("none", true)] {
            let headers = [("host", "localhost"), ("sec-fetch-site", site)];
            assert_eq!((change(NEAR, &headers), look(NEAR, &headers)), (allowed, allowed), "{site}");
        }
        // From one name of this machine to another.
        let headers = [("host", "127.0.0.1"), ("origin", "http://localhost"), ("sec-fetch-site", "cross-site")];
        assert!(change(NEAR, &headers));
    }

    #[test]
    fn only_a_local_origin_may_change_or_look() {
        for origin in ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:7862"] {
            assert!(change(NEAR, &[("host", "localhost"), ("origin", origin)]), "{origin}");
        }
        for origin in
            ["null", "https://evil.example", "http://localhost.evil.example", "file://localhost", "localhost", ""]
        {
            let headers = [("host", "localhost"), ("origin", origin)];
            assert!(!change(NEAR, &headers) && !look(NEAR, &headers), "{origin}");
        }
        let both = [("host", "localhost"), ("origin", "http://localhost"), ("origin", "http://evil.example")];
        assert!(!change(NEAR, &both));
    }

    #[test]
    fn the_token_opens_everything_from_everywhere() {
        for bearer in ["Bearer s3cret", "bearer s3cret", "BEARER  s3cret"] {
            let headers = [("authorization", bearer), ("host", "evil.example"), ("origin", "null")];
            assert!(change(FAR, &headers) && look(FAR, &headers), "{bearer}");
        }
    }

    #[test]
    fn a_wrong_token_opens_nothing() {
        for wrong in ["Bearer s3cre", "Bearer s3crets", "Bearer ", "Basic s3cret", "s3cret", "Bearer", ""] {
            assert!(!change(FAR, &[("host", "localhost"), ("authorization", wrong)]), "{wrong}");
        }
    }

    #[test]
    fn a_refusal_says_that_the_token_was_wrong_where_one_came() {
        for (name, text, is_told) in
            [("authorization", "Bearer s3cre", true), ("x-vecho-admin-token", "no", true), ("accept", "*/*", false)]
        {
            let case = Case { access: Access::Change, peer: FAR, headers: &[("host", "localhost"), (name, text)] };
            let message = case.checked(Some("s3cret")).expect_err("it must be refused").to_string();
            assert_eq!(message.contains("is not `admin.token`"), is_told, "{message}");
        }
    }

    #[test]
    fn without_a_token_set_no_token_opens_anything() {
        let case = |bearer| Case { access: Access::Change, peer: FAR, headers: bearer };
        for token in [None, Some("")] {
            assert!(!case(&[("host", "localhost"), ("authorization", "Bearer ")]).allowed(token));
            assert!(!case(&[("host", "localhost"), ("authorization", "Bearer s3cret")]).allowed(token));
        }
    }

    #[test]
    fn open_routes_ask_nothing() {
        assert!(Case { access: Access::Open, peer: FAR, headers: &[("host", "evil.example")] }.allowed(None));
    }

    #[test]
    fn the_token_does_not_print() {
        let guard = Guard::new(Some(&Secret::new("s3cret")));
        assert!(!format!("{guard:?}").contains("s3cret"));
    }
}
