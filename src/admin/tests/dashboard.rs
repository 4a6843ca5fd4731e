//! Tests of the page and its event streams: idle streams, slow readers and the end of the feed.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, VARY};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::client::{assert_error, get, keys, request, send};
use super::parts::context;
use crate::admin::{AdminBody, AdminContext, handle, run_updates};

async fn open(context: &AdminContext) -> AdminBody {
    let peer = "127.0.0.1:50000".parse().expect("the peer must be an address");
    let answer = handle(context, request(&Method::GET, "/api/events", ""), peer).await;
    assert_eq!(answer.status(), StatusCode::OK);
    answer.into_body()
}

/// Returns the next piece of a stream, or `None` at its end.
async fn next(stream: &mut AdminBody) -> Option<Bytes> {
    let frame = stream.frame().await?;
    Some(frame.expect("a stream is not cut").into_data().expect("a piece is data"))
}

fn data(event: &[u8]) -> Value {
    let text = str::from_utf8(event).expect("an event is text");
    let data = text.lines().find_map(|line| line.strip_prefix("data: ")).expect("an event has data");
    serde_json::from_str(data).expect("data is JSON")
}

#[tokio::test]
async fn dashboard_folder_redirects_to_the_page() {
    let reply = get(&context(), "/dashboard/").await;
    let to = reply.headers.get("location").map(|value| value.to_str().expect("it is text"));
    assert_eq!((reply.status, to), (StatusCode::PERMANENT_REDIRECT, Some("../")));
}

#[tokio::test]
async fn clients_that_accept_html_get_the_page_and_others_the_route_list() {
    let context = context();
    for (accept, kind) in [
        ("text/html", "text/html; charset=utf-8"),
        ("application/json, Text/HTML;q=0.9", "text/html; charset=utf-8"),
        ("*/*", "text/plain; charset=utf-8"),
        ("text/htmlx", "text/plain; charset=utf-8"),
    ] {
        let mut request = request(&Method::GET, "/", "");
        request.headers_mut().insert(ACCEPT, accept.parse().expect("a header value"));
        let answer = send(&context, request).await;
        assert_eq!(
            (&answer.headers["content-type"], &answer.headers[VARY]),
            (&kind.parse().expect("a header value"), &"accept".parse().expect("a header value"))
        );
    }
    assert_error(&get(&context, "/dashboard/nothing.js").await, StatusCode::NOT_FOUND, "unknown_url");
}

#[tokio::test]
async fn dashboard_state_has_the_documented_fields() {
    let dashboard = get(&context(), "/api/dashboard").await.json();
    assert_eq!(keys(&dashboard), ["history", "now", "recent"]);
    let first =
        ["at_ms", "bypass", "fallback_mode", "health", "incidents", "inputs", "log_level", "memory", "outcomes"];
    assert_eq!(keys(&dashboard["now"]), [&first[..], &["started_ms", "stats", "upstream", "version"]].concat());
    assert_eq!(keys(&dashboard["history"]), ["coarse", "coarse_step_seconds", "samples", "step_seconds"]);
    let upstream = ["batch_sizes", "breaker", "calls", "in_flight", "latency_ms", "mean_inputs_per_call"];
    let rest = ["queued_inputs", "retries", "url"];
    assert_eq!(keys(&dashboard["now"]["upstream"]), [&upstream[..], &rest].concat());
    assert_eq!(keys(&dashboard["now"]["memory"]), ["actions", "limit_bytes", "resident_bytes"]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_events_sends_heartbeats() {
    let context = context();
    let mut stream = open(&context).await;
    assert!(data(&next(&mut stream).await.expect("the first event"))["now"].is_object());
    for _ in 0..2 {
        let begun = Instant::now();
        assert_eq!(next(&mut stream).await.as_deref(), Some(&b": heartbeat\n\n"[..]));
        assert!(begun.elapsed() <= Duration::from_secs(15));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_not_read_is_closed_and_others_continue() {
    let context = context();
    let (mut slow, mut quick) = (open(&context).await, open(&context).await);
    let reading = async {
        for _ in 0..10 {
            next(&mut quick).await.expect("an event");
        }
        next(&mut slow).await.expect("what was written at the start");
        assert_eq!(next(&mut slow).await, None, "it missed events");
        assert!(next(&mut quick).await.is_some(), "the feed goes on");
    };
    tokio::select! {
        () = run_updates(context.clone()) => unreachable!("the feed has no end of its own"),
        () = reading => {}
    }
}

#[tokio::test(start_paused = true)]
async fn streams_end_with_the_feed_and_later_ones_are_refused() {
    let context = context();
    let mut stream = open(&context).await;
    tokio::select! {
        () = run_updates(context.clone()) => unreachable!("the feed has no end of its own"),
        () = sleep(Duration::from_secs(3)) => {}
    }
    let mut pieces = 0;
    while next(&mut stream).await.is_some() {
        pieces += 1;
        assert!(pieces <= 2, "it goes on");
    }
    assert_eq!(pieces, 2, "what it was told before the end");
    let refused = get(&context, "/api/events").await;
    assert_error(&refused, StatusCode::SERVICE_UNAVAILABLE, "overloaded");
}
