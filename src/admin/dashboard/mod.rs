//! The live dashboard: a page and its files, compiled in; what it shows at first; and what it is told from then on.
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
use crate::metrics::{COARSE_STEP_SECONDS, Recent, STEP_SECONDS, Sample, Seen};

pub use feed::Feed;

/// Where the files of the page are.
pub(super) const ASSETS_PATH: &str = "/dashboard/";

const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                   base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Whether the page is wanted: browsers name the type, tools do not.
pub(super) fn wants_page(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split([',', ';'])).any(|kind| kind.trim().eq_ignore_ascii_case("text/html"))
}

/// `GET /` of a browser.
pub(super) fn page() -> Reply {
    let mut reply = secured(reply::bytes(StatusCode::OK, "text/html; charset=utf-8", assets::PAGE));
    vary(&mut reply);
    reply
}

/// Says that another `accept` gets another answer.
pub(super) fn vary(reply: &mut Reply) {
    reply.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
}

/// `GET /dashboard/`: the page is one above its files.
pub(super) fn to_page() -> Reply {
    let mut reply = reply::bytes(StatusCode::PERMANENT_REDIRECT, "text/plain; charset=utf-8", "The dashboard is /.\n");
    reply.headers_mut().insert(header::LOCATION, HeaderValue::from_static("../"));
    reply
}

/// `GET /dashboard/FILE`
pub(super) fn asset(path: &str) -> Option<Reply> {
    let asset = assets::find(path.strip_prefix(ASSETS_PATH)?)?;
    Some(secured(reply::bytes(StatusCode::OK, asset.content_type, asset.content)))
}

/// Nothing but its own files may run in the page, frame it, or learn where its reader came from.
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

/// `GET /api/dashboard`: all that the page shows, with what happened before it was opened.
pub(super) async fn dashboard(context: &AdminContext) -> Reply {
    let context = context.clone();
    // To write a day takes milliseconds, in which no request may wait.
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

/// `GET /api/events`
pub(super) fn events(context: &AdminContext, peer: IpAddr) -> Result<Reply, Refusal> {
    let events = context.feed.open(peer, || feed::update(context, None, &[])).ok_or(Refusal::TooManyStreams)?;
    Ok(reply::streamed(feed::CONTENT_TYPE, events))
}

/// The same without the events.
pub(super) fn no_events() -> Reply {
    reply::bytes(StatusCode::OK, feed::CONTENT_TYPE, "")
}
