//! The page and its files. The page itself holds no figures.

use http::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY, VARY};
use http::{StatusCode, header};

use super::super::reply::{self, AdminResponse};
use super::assets;

/// Path of the page's files.
pub(in crate::admin) const ASSETS_PATH: &str = "/dashboard/";

// Callers of the proxy choose the names that the page shows, so no injected script may run.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                   base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Returns true if the client accepts HTML: browsers name that type, tools do not.
pub(in crate::admin) fn wants_page(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split([',', ';'])).any(|kind| kind.trim().eq_ignore_ascii_case("text/html"))
}

/// `GET /` from a browser.
pub(in crate::admin) fn page() -> AdminResponse {
    let mut reply = secured(reply::bytes(StatusCode::OK, "text/html; charset=utf-8", assets::PAGE));
    vary(&mut reply);
    reply
}

/// Adds `vary: accept`, since the response depends on that header.
pub(in crate::admin) fn vary(reply: &mut AdminResponse) {
    reply.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
}

/// `GET /dashboard/`: redirects to the page, which is one level above its files.
pub(in crate::admin) fn to_page() -> AdminResponse {
    let mut reply = reply::bytes(StatusCode::PERMANENT_REDIRECT, "text/plain; charset=utf-8", "The dashboard is /.\n");
    reply.headers_mut().insert(header::LOCATION, HeaderValue::from_static("../"));
    reply
}

/// `GET /dashboard/FILE`: returns one of the page's files, or `None` for an unknown name.
pub(in crate::admin) fn asset(path: &str) -> Option<AdminResponse> {
    let asset = assets::find(path.strip_prefix(ASSETS_PATH)?)?;
    Some(secured(reply::bytes(StatusCode::OK, asset.content_type, asset.content)))
}

/// Adds headers that allow only the page's own files to run, forbid framing, and suppress the referrer.
fn secured(mut reply: AdminResponse) -> AdminResponse {
    let headers: [(HeaderName, &'static str); 3] = [
        (header::CONTENT_SECURITY_POLICY, CSP),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in headers {
        reply.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    reply
}
