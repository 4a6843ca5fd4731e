//! Heads of requests and answers: caching, hosts, paths and connections.
//!
//! The first line is the target of a request, and every other line is a header.

use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, Version};
use url::{Host, Url};
use vecho::admin::is_local_authority;
use vecho::proxy::{ReadControls, read_controls};
use vecho::serve::check_head;
use vecho::upstream::{
    RouteKind, classify_path, deployment, forwardable, is_hop_by_hop, marks_fallback, named_by_connection, normal_path,
    shown_on_errors, shown_on_misses, strip_hop_by_hop, upstream_uri,
};
use vecho::wire::content_codings;

/// Addresses of upstreams.
const BASES: [&str; 5] =
    ["https://api.example", "http://h:1/v1", "http://h/openai/v1/", "https://h/my-api", "http://h/a/deployments/b"];

/// Checks one head.
pub(crate) fn check(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let target = lines.next().unwrap_or_default();
    let fields: Vec<(HeaderName, HeaderValue)> = lines.filter_map(field).collect();
    let headers: HeaderMap = collected(fields.iter());
    if let Ok(target) = Uri::try_from(target) {
        hosts(&target, &headers);
        if let Some(path) = target.path_and_query() {
            paths(path);
        }
    }
    controls(&fields, &headers);
    codings(&headers);
    connections(&headers);
    shown(&headers);
}

fn field(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
    Some((HeaderName::from_bytes(&line[..colon]).ok()?, value))
}

fn collected<'a>(fields: impl Iterator<Item = &'a (HeaderName, HeaderValue)>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(name, value.clone());
    }
    headers
}

fn hosts(target: &Uri, headers: &HeaderMap) {
    for host in headers.get_all("host") {
        local(host.as_bytes());
    }
    let accepted = |version| {
        let mut request = Request::builder().version(version).uri(target.clone()).body(()).expect("a legal request");
        request.headers_mut().clone_from(headers);
        check_head(&request).is_ok()
    };
    let lines = headers.get_all("host").iter().count();
    if accepted(Version::HTTP_11) {
        assert_eq!(lines, 1, "HTTP/1.1 requires one Host");
        assert!(accepted(Version::HTTP_10), "HTTP/1.0 requires no more than HTTP/1.1");
    }
    if accepted(Version::HTTP_2) {
        assert!(lines <= 1 && (lines == 1 || target.authority().is_some()));
    }
    if [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2].into_iter().any(accepted) {
        let named = headers.get_all("host").iter().map(HeaderValue::as_bytes).filter(|host| !host.is_empty());
        for host in named.chain(target.authority().map(|authority| authority.as_str().as_bytes())) {
            let authority = Authority::try_from(host).expect("a host that is accepted must be an authority");
            assert!(!authority.as_str().contains(['@', ' ', '/', '\\', '?', '#']), "{authority}");
        }
    }
}

/// Checks a local name with a second parser, which must agree.
fn local(host: &[u8]) {
    if !is_local_authority(host) {
        return;
    }
    let text = std::str::from_utf8(host).expect("a local name must be text");
    let is_local = match Url::parse(&format!("http://{text}/")).expect("a local name must be a host").host() {
        Some(Host::Domain(domain)) => domain.eq_ignore_ascii_case("localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.to_canonical().is_loopback(),
        None => false,
    };
    assert!(is_local, "{text:?} is none of this machine");
}

fn paths(ours: &PathAndQuery) {
    let path = ours.path();
    let normal = normal_path(path);
    assert_eq!(normal_path(&normal), normal, "normal forms are normal");
    assert!(!normal.contains("//") && (normal.len() <= 1 || !normal.ends_with('/')));
    let kind = classify_path(path);
    assert_eq!((classify_path(&normal), deployment(&normal)), (kind, deployment(path)));
    assert_eq!(kind == RouteKind::Deployment, deployment(path).is_some());
    for base in BASES.map(Uri::from_static) {
        let Ok(theirs) = upstream_uri(&base, ours) else { continue };
        assert_eq!(
            (theirs.scheme(), theirs.authority(), theirs.query()),
            (base.scheme(), base.authority(), ours.query())
        );
        let last = |path: &str| normal_path(path).rsplit('/').next().map(str::to_owned);
        assert!(kind == RouteKind::Other || last(theirs.path()) == last(path), "{base} {ours} {theirs}");
        assert!(kind == RouteKind::Other || classify_path(theirs.path()) != RouteKind::Other);
    }
}

fn controls(fields: &[(HeaderName, HeaderValue)], headers: &HeaderMap) {
    let Ok(read) = read_controls(headers) else { return };
    assert_eq!(read_controls(&collected(fields.iter().rev())), Ok(read), "the order of headers changes nothing");
    let is_namespace = |(name, _): &&(HeaderName, HeaderValue)| name == "x-vecho-namespace";
    let doubled = fields.iter().chain(fields.iter().filter(|field| !is_namespace(field)));
    assert_eq!(read_controls(&collected(doubled)), Ok(read), "saying it twice changes nothing");
    let mut narrowed = headers.clone();
    narrowed.append("cache-control", HeaderValue::from_static("max-age=1, No-Store"));
    narrowed.append("x-vecho-fallback", HeaderValue::from_static("error"));
    narrower(read, read_controls(&narrowed).expect("these are legal"));
}

/// Checks that further controls only narrow the previous ones.
fn narrower(before: ReadControls, after: ReadControls) {
    let (before, after) = (before.controls, after.controls);
    assert!(after.no_store && after.max_age_ms.is_some_and(|age_ms| age_ms <= 1_000));
    assert!(after.no_cache == before.no_cache && after.only_if_cached == before.only_if_cached);
    assert!(after.fallback.is_some() && before.fallback.is_none_or(|fallback| after.fallback <= Some(fallback)));
}

fn codings(headers: &HeaderMap) {
    let Some(codings) = content_codings(headers) else { return };
    assert!(codings.len() <= 3);
    let mut joined = HeaderMap::new();
    let values: Vec<&[u8]> = headers.get_all("content-encoding").iter().map(HeaderValue::as_bytes).collect();
    let shouted = values.join(&b", "[..]).to_ascii_uppercase();
    joined.insert("content-encoding", HeaderValue::from_bytes(&shouted).expect("parts of values are a value"));
    assert_eq!(content_codings(&joined), Some(codings), "several lines and one list are the same");
}

fn connections(headers: &HeaderMap) {
    let named = named_by_connection(headers);
    let mut stripped = headers.clone();
    strip_hop_by_hop(&mut stripped);
    for key_is_ours in [true, false] {
        let sent = forwardable(headers, key_is_ours);
        assert_eq!(forwardable(&sent, key_is_ours), sent);
        assert!(sent.keys().all(|name| stripped.contains_key(name) && !name.as_str().starts_with("x-vecho-")));
        assert!(!key_is_ours || !sent.contains_key("authorization"));
    }
    assert!(stripped.keys().all(|name| !is_hop_by_hop(name) && !named.contains(name)));
    let once = stripped.clone();
    strip_hop_by_hop(&mut stripped);
    assert_eq!(stripped, once);
}

fn shown(headers: &HeaderMap) {
    let on_miss = shown_on_misses(headers);
    assert!(on_miss.len() <= 88 && on_miss.values().all(|value| value.len() <= 4 * 1024));
    assert!(on_miss.keys().all(|name| !is_hop_by_hop(name) && !name.as_str().starts_with("x-vecho-")));
    assert_eq!(
        (shown_on_misses(&on_miss), shown_on_errors(&shown_on_errors(headers))),
        (on_miss.clone(), shown_on_errors(headers))
    );
    if marks_fallback(headers) {
        let mut more = headers.clone();
        more.append("x-vecho-cache", HeaderValue::from_static("hit"));
        assert!(marks_fallback(&more), "a further mark hides none");
    }
}
