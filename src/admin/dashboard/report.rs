//! What the page shows: its complete state on request, and its event stream.

use std::net::IpAddr;
use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;
use serde_json::Value;

use super::super::reply::{self, AdminResponse, Refusal};
use super::super::{AdminContext, feed};
use super::{state, updates};
use crate::observe::metrics::{COARSE_STEP_SECONDS, HistorySample, Recent, STEP_SECONDS, Seen};

/// `GET /api/dashboard`: the complete state of the page, with the history from before it was opened.
pub(in crate::admin) async fn dashboard(context: &AdminContext) -> AdminResponse {
    let context = context.clone();
    // Serializing a day of samples takes milliseconds, so it must not block the runtime's threads.
    let written = tokio::task::spawn_blocking(move || whole(&context));
    written.await.expect("writing figures must not panic")
}

fn whole(context: &AdminContext) -> AdminResponse {
    let samples = context.metrics.samples();
    reply::ok(&DashboardReport {
        now: state::now(context),
        history: HistoryReport {
            step_seconds: STEP_SECONDS,
            samples: samples.fine.iter().map(Arc::as_ref).collect(),
            coarse_step_seconds: COARSE_STEP_SECONDS,
            coarse: samples.coarse.iter().map(Arc::as_ref).collect(),
        },
        recent: context.metrics.performance().recent(&mut Seen::default()),
    })
}

#[derive(Serialize)]
struct DashboardReport<'a> {
    now: Value,
    history: HistoryReport<'a>,
    recent: Vec<Recent>,
}

#[derive(Serialize)]
struct HistoryReport<'a> {
    step_seconds: u64,
    samples: Vec<&'a HistorySample>,
    coarse_step_seconds: u64,
    coarse: Vec<&'a HistorySample>,
}

/// `GET /api/events`: opens an event stream.
pub(in crate::admin) fn events(context: &AdminContext, peer: IpAddr) -> Result<AdminResponse, Refusal> {
    let events = context.feed.open(peer, || updates::update(context, None, &[])).ok_or(Refusal::TooManyStreams)?;
    Ok(reply::streamed(feed::CONTENT_TYPE, events))
}

/// Returns the same headers with an empty body, for `HEAD`.
pub(in crate::admin) fn no_events() -> AdminResponse {
    reply::bytes(StatusCode::OK, feed::CONTENT_TYPE, "")
}
