//! Checks of request heads that hyper leaves to its user: the host (RFC 9112, section 3.2; RFC 9113, section 8.3.1) and
//! transfer codings (RFC 9112, section 6.1).

use http::header::{HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Request, Version};

/// Reason why a request head is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHead {
    /// It has no host, and its HTTP version requires one.
    #[error("the request names no host")]
    NoHost,
    /// It has more than one `Host`, or `:authority` and `Host` differ.
    #[error("the request names more than one host")]
    SeveralHosts,
    /// The host is not a name or an address with an optional port.
    #[error("the host that the request names is malformed")]
    MalformedHost,
    /// The body has a transfer coding other than `chunked`, or several codings.
    #[error("the body has another transfer coding than chunked")]
    TransferCoding,
    /// The head has both `Content-Length` and `Transfer-Encoding`.
    #[error("the body has both a length and a transfer coding")]
    TwoLengths,
}

/// Checks a request head.
pub fn check_head<B>(request: &Request<B>) -> Result<(), BadHead> {
    check_host(request)?;
    check_coding(request.headers())
}

/// Rejects a request whose head has both `Content-Length` and `Transfer-Encoding`, as `has_two_lengths` says.
pub(super) fn check_lengths<B>(request: &Request<B>, has_two_lengths: bool) -> Result<(), BadHead> {
    let is_ambiguous = has_two_lengths && request.headers().contains_key(TRANSFER_ENCODING);
    if is_ambiguous { Err(BadHead::TwoLengths) } else { Ok(()) }
}

/// Accepts only `chunked`, the one coding that is decoded. A body in a further coding would be forwarded undecoded.
fn check_coding(headers: &HeaderMap) -> Result<(), BadHead> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let is_chunked = codings.next().is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if is_chunked && codings.next().is_none() { Ok(()) } else { Err(BadHead::TransferCoding) }
}

/// Checks the `Host` header and the authority of the request target.
fn check_host<B>(request: &Request<B>) -> Result<(), BadHead> {
    let mut hosts = request.headers().get_all(HOST).iter().map(HeaderValue::as_bytes);
    let (host, version) = (hosts.next(), request.version());
    if hosts.next().is_some() {
        return Err(BadHead::SeveralHosts);
    }
    let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    // RFC 9112, section 3.2 demands `Host`. In HTTP/2, `:authority` takes its place (RFC 9113, section 8.3.1).
    let is_required = version == Version::HTTP_11 || (version == Version::HTTP_2 && authority.is_none());
    match host {
        None if is_required => return Err(BadHead::NoHost),
        // If the target has no authority, `Host` may be empty.
        Some(host) if !(is_host_and_port(host) || host.is_empty() && authority.is_none()) => {
            return Err(BadHead::MalformedHost);
        }
        _ => {}
    }
    match (host, authority) {
        (_, Some(authority)) if !is_host_and_port(authority) => Err(BadHead::MalformedHost),
        // In HTTP/1.1 the authority of the target replaces `Host` (RFC 9112, section 3.2.2), so the two may differ.
        (Some(host), Some(authority)) if version == Version::HTTP_2 && !is_same(host, authority) => {
            Err(BadHead::SeveralHosts)
        }
        _ => Ok(()),
    }
}

/// Returns true for a host with an optional port (RFC 3986, section 3.2), without user information.
fn is_host_and_port(text: &[u8]) -> bool {
    let host_bytes = match text {
        // Without a closing bracket the host is empty, which is rejected below.
        [b'[', rest @ ..] => rest.iter().position(|byte| *byte == b']').map_or(0, |end| end + 2),
        _ => text.iter().position(|byte| *byte == b':').unwrap_or(text.len()),
    };
    let (host, port) = text.split_at(host_bytes);
    is_host(host) && (port.is_empty() || is_port(&port[1..]) && port[0] == b':')
}

/// Rejects percent-encoding. RFC 3986 allows it in names, but DNS names have none, and the parser of targets rejects
/// it.
fn is_host(host: &[u8]) -> bool {
    match host {
        [b'[', address @ .., b']'] => {
            !address.is_empty() && address.iter().all(|byte| byte.is_ascii_hexdigit() || b":.".contains(byte))
        }
        name => {
            !name.is_empty()
                && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(byte))
        }
    }
}

fn is_port(digits: &[u8]) -> bool {
    // RFC 3986, section 3.2.3 allows a colon without a port. The parser of numbers accepts a plus sign.
    digits.is_empty()
        || str::from_utf8(digits).is_ok_and(|digits| !digits.starts_with('+') && digits.parse::<u16>().is_ok())
}

/// Returns true if both name the same host. HTTP/2 is served only over TLS, so the default port is 443.
fn is_same(host: &[u8], authority: &[u8]) -> bool {
    let without_port = |text: &[u8]| text.strip_suffix(b":443").unwrap_or(text).to_ascii_lowercase();
    without_port(host) == without_port(authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(version: Version, target: &str, hosts: &[&str]) -> Result<(), BadHead> {
        let mut request = Request::builder().version(version).uri(target);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        check_head(&request.body(()).expect("the request must be valid"))
    }

    #[test]
    fn hosts_that_clients_send_are_accepted() {
        for host in ["h", "h:80", "api_1:8080", "127.0.0.1:7861", "[::1]", "[::1]:80", "a.b-c.example.", "h:", ""] {
            assert_eq!(checked(Version::HTTP_11, "/v1", &[host]), Ok(()), "{host}");
        }
        assert_eq!(checked(Version::HTTP_11, "http://other/v1", &["h"]), Ok(()), "the target's own host counts");
        assert_eq!(checked(Version::HTTP_10, "/v1", &[]), Ok(()));
        assert_eq!(checked(Version::HTTP_2, "https://h/v1", &[]), Ok(()));
        assert_eq!(checked(Version::HTTP_2, "https://h/v1", &["H:443"]), Ok(()));
        assert_eq!(checked(Version::HTTP_2, "/v1", &["h"]), Ok(()));
    }

    #[test]
    fn malformed_hosts_are_refused() {
        let hosts = [
            "a b", "a/b", "user@h", "h:x", "h:65536", "h:+1", ":80", "[::1", "[::1]x", "[]", "a:b:1", "[g::]", "h#",
            "h\\",
        ];
        for host in hosts {
            for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
                assert_eq!(checked(version, "/v1", &[host]), Err(BadHead::MalformedHost), "{host}");
            }
        }
        assert_eq!(checked(Version::HTTP_11, "http://h/v1", &[""]), Err(BadHead::MalformedHost));
        for version in [Version::HTTP_11, Version::HTTP_2] {
            assert_eq!(checked(version, "http://user@h/v1", &["h"]), Err(BadHead::MalformedHost));
        }
    }

    #[test]
    fn exactly_one_host_is_required() {
        assert_eq!(checked(Version::HTTP_11, "/v1", &[]), Err(BadHead::NoHost));
        assert_eq!(checked(Version::HTTP_11, "http://h/v1", &[]), Err(BadHead::NoHost));
        assert_eq!(checked(Version::HTTP_2, "/v1", &[]), Err(BadHead::NoHost));
        for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
            assert_eq!(checked(version, "/v1", &["h", "h"]), Err(BadHead::SeveralHosts));
        }
        assert_eq!(checked(Version::HTTP_2, "https://h/v1", &["other"]), Err(BadHead::SeveralHosts));
    }

    #[test]
    fn two_lengths_are_blamed_only_on_a_head_with_a_transfer_coding() {
        let request = |coding: Option<&str>| {
            let request = Request::builder().uri("/v1").header(HOST, "h");
            let request = coding.into_iter().fold(request, |request, coding| request.header(TRANSFER_ENCODING, coding));
            request.body(()).expect("the request must be valid")
        };
        assert_eq!(check_lengths(&request(Some("chunked")), true), Err(BadHead::TwoLengths));
        assert_eq!(check_lengths(&request(None), true), Ok(()));
        assert_eq!(check_lengths(&request(Some("chunked")), false), Ok(()));
    }

    #[test]
    fn at_most_one_transfer_coding_is_accepted() {
        let checked = |codings: &[&str]| {
            let mut request = Request::builder().version(Version::HTTP_11).uri("/v1").header(HOST, "h");
            for coding in codings {
                request = request.header(TRANSFER_ENCODING, *coding);
            }
            check_head(&request.body(()).expect("the request must be valid"))
        };
        for accepted in [&[][..], &["chunked"][..], &["Chunked"][..]] {
            assert_eq!(checked(accepted), Ok(()), "{accepted:?}");
        }
        for refused in [&["gzip"][..], &["gzip, chunked"][..], &["gzip", "chunked"][..], &["chunked", "chunked"][..]] {
            assert_eq!(checked(refused), Err(BadHead::TransferCoding), "{refused:?}");
        }
    }
}
