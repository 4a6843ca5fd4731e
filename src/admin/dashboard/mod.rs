//! The live dashboard: a page with its files, its initial state, and an event stream.
//!
//! The page itself holds no figures. Its requests for figures pass the guard like all others.

mod assets;
mod feed;
mod places;
mod state;

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY, VARY};
use http::{StatusCode, header};
use serde::Serialize;
use serde_json::Value;

use super::AdminContext;
use super::reply::{self, Refusal, Reply};
use crate::observe::metrics::{COARSE_STEP_SECONDS, Recent, STEP_SECONDS, Sample, Seen};

pub use feed::Feed;

/// Path of the page's files.
pub(super) const ASSETS_PATH: &str = "/dashboard/";

const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                   base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Returns true if the client accepts HTML: browsers name that type, tools do not.
pub(super) fn wants_page(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split([',', ';'])).any(|kind| kind.trim().eq_ignore_ascii_case("text/html"))
}

/// `GET /` from a browser.
pub(super) fn page() -> Reply {
    let mut reply = secured(reply::bytes(StatusCode::OK, "text/html; charset=utf-8", assets::PAGE));
    vary(&mut reply);
    reply
}

/// Adds `vary: accept`, since the response depends on that header.
pub(super) fn vary(reply: &mut Reply) {
    reply.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
}

/// `GET /dashboard/`: redirects to the page, which is one level above its files.
pub(super) fn to_page() -> Reply {
    let mut reply = reply::bytes(StatusCode::PERMANENT_REDIRECT, "text/plain; charset=utf-8", "The dashboard is /.\n");
    reply.headers_mut().insert(header::LOCATION, HeaderValue::from_static("../"));
    reply
}

/// `GET /dashboard/FILE`: returns one of the page's files, or `None` for an unknown name.
pub(super) fn asset(path: &str) -> Option<Reply> {
    let asset = assets::find(path.strip_prefix(ASSETS_PATH)?)?;
    Some(secured(reply::bytes(StatusCode::OK, asset.content_type, asset.content)))
}

/// Adds headers that allow only the page's own files to run, forbid framing, and suppress the referrer.
fn secured(mut reply: Reply) -> Reply {
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

/// `GET /api/dashboard`: the complete state of the page, with the history from before it was opened.
pub(super) async fn dashboard(context: &AdminContext) -> Reply {
    let context = context.clone();
    // Serializing a day of samples takes milliseconds, so it must not block the runtime's threads.
    let written = tokio::task::spawn_blocking(move || whole(&context));
    written.await.expect("writing figures must not panic")
}

fn whole(context: &AdminContext) -> Reply {
    let samples = context.metrics.samples();
    reply::ok(&Whole {
        now: state::now(context),
        history: History {
            step_seconds: STEP_SECONDS,
            samples: samples.fine.iter().map(Arc::as_ref).collect(),
            coarse_step_seconds: COARSE_STEP_SECONDS,
            coarse: samples.coarse.iter().map(Arc::as_ref).collect(),
        },
        recent: context.metrics.performance().recent(&mut Seen::default()),
    })
}

#[derive(Serialize)]
struct Whole<'a> {
    now: Value,
    history: History<'a>,
    recent: Vec<Recent>,
}

#[derive(Serialize)]
struct History<'a> {
    step_seconds: u64,
    samples: Vec<&'a Sample>,
    coarse_step_seconds: u64,
    coarse: Vec<&'a Sample>,
}

/// `GET /api/events`: opens an event stream.
pub(super) fn events(context: &AdminContext, peer: IpAddr) -> Result<Reply, Refusal> {
    let events = context.feed.open(peer, || feed::update(context, None, &[])).ok_or(Refusal::TooManyStreams)?;
    Ok(reply::streamed(feed::CONTENT_TYPE, events))
}

/// Returns the same headers with an empty body, for `HEAD`.
pub(super) fn no_events() -> Reply {
    reply::bytes(StatusCode::OK, feed::CONTENT_TYPE, "")
}
