//! Ends of a wait: callers that hang up, an upstream that is down, a reload, and a shutdown.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;

use super::ground::{one_call_in, text};
use crate::harness::ops::{metric, metric_becomes};
use crate::harness::socket::Socket;
use crate::harness::stub::Reported;
use crate::harness::tls::Folder;
use crate::harness::{Client, Front, Stub, Vecho, eventually};

const WAITING: &str = r#"vecho_pace_waiting{priority="interactive"}"#;

/// Sends a request on a new connection and does not wait for the answer.
async fn begin(address: SocketAddr, name: &str) -> Socket {
    let body = text(name);
    let mut socket = Socket::connect(address).await;
    let head = "POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    socket.send(format!("{head}content-length: {}\r\n\r\n{body}", body.len())).await;
    socket
}

#[tokio::test]
async fn the_texts_of_a_caller_that_hangs_up_are_still_fetched_and_nothing_leaks() {
    let front = Front::start().await;
    front.stub.limit_rate(one_call_in(3.0, Reported::Azure));
    assert_eq!(front.post(text("a")).send().await.status, 200);
    let gone = begin(front.public(), "b").await;
    front.reaches(WAITING, 1.0).await;
    drop(gone);
    front.falls_to_zero(WAITING).await;
    front.falls_to_zero("vecho_upstream_in_flight").await;
    let record = front.stub.quota_record();
    assert_eq!((record.accepted().len(), record.refused().len()), (2, 1), "its text is fetched without it");
    assert_eq!(front.post(text("b")).send().await.cache(), "hit");
    assert_eq!(front.calls(), 3);
    for gauge in ["vecho_upstream_queued_inputs", "vecho_requests_in_flight"] {
        front.falls_to_zero(gauge).await;
    }
}

#[tokio::test]
async fn waiting_calls_survive_a_reload() {
    let stub = Stub::start();
    stub.limit_rate(one_call_in(3.0, Reported::Azure));
    let folder = Folder::new("pacing-reload");
    let file = folder.write("vecho.toml", "priority.bulk_from = 16\n");
    let vecho = Vecho::start_args(&stub.base_url(), &[("VECHO_RELOAD_POLL_EVERY", "0s")], &["--config", &file]);
    let first = begin(vecho.public(), "a").await;
    stub.arrived(1).await;
    let mut second = begin(vecho.public(), "b").await;
    metric_becomes(vecho.admin(), WAITING, 1.0).await;
    folder.write("vecho.toml", "priority.bulk_from = 1\n");
    vecho.signal("HUP");
    let reloads = r#"vecho_config_reloads_total{result="ok"}"#;
    eventually("a reload", async || metric(vecho.admin(), reloads).await >= 1.0).await;
    // From now on a single text is bulk, and the older call still gets its turn.
    let third = begin(vecho.public(), "c").await;
    metric_becomes(vecho.admin(), r#"vecho_pace_waiting{priority="bulk"}"#, 1.0).await;
    let answer = second.read_until("}").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop((first, third));
}

#[tokio::test]
async fn a_shutdown_waits_for_paced_calls_within_its_grace_period() {
    let stub = Stub::start();
    stub.limit_rate(one_call_in(3.0, Reported::Azure));
    let vecho = Vecho::start_with(&stub.base_url(), &[("VECHO_SHUTDOWN_GRACE", "20s")]);
    let client = Client::new();
    let url = format!("{}/embeddings", vecho.base_url());
    assert_eq!(client.post(&url, &json!({"model": "tiny", "input": "a"})).await.status, 200);
    let mut open = begin(vecho.public(), "b").await;
    metric_becomes(vecho.admin(), WAITING, 1.0).await;
    vecho.signal("TERM");
    let answer = open.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let ended = vecho.ended();
    assert_eq!(ended.status.code(), Some(0));
    assert!(ended.log.contains("stopped: nothing was cut"), "{}", ended.log);
}

#[tokio::test]
async fn the_end_of_the_grace_period_ends_paced_waits() {
    let stub = Stub::start();
    stub.limit_rate(one_call_in(60.0, Reported::Azure));
    let vecho = Vecho::start_with(&stub.base_url(), &[("VECHO_SHUTDOWN_GRACE", "300ms")]);
    let first = begin(vecho.public(), "a").await;
    stub.arrived(1).await;
    let mut open = begin(vecho.public(), "b").await;
    metric_becomes(vecho.admin(), WAITING, 1.0).await;
    let begun = Instant::now();
    vecho.signal("TERM");
    assert_eq!(open.read_to_end().await, "", "it is cut, not answered");
    let ended = vecho.ended();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(ended.status.code(), Some(0));
    assert!(ended.log.contains("cut_fetches=1"), "{}", ended.log);
    drop(first);
}

#[tokio::test]
async fn waiting_calls_get_their_fallback_as_soon_as_the_breaker_opens() {
    let breaker = [("breaker.failures", "1"), ("breaker.open_for", "60s"), ("breaker.max_open", "60s")];
    let settings = [&breaker[..], &[("retry.max_attempts", "1"), ("fallback.mode", "mock")]].concat();
    // With the first service the call waits for its first turn, with the second one for that after a refusal.
    for (reported, calls) in [(Reported::OpenAi, 1), (Reported::Azure, 2)] {
        let front = Front::with(&settings).await;
        front.stub.limit_rate(one_call_in(60.0, reported));
        assert_eq!(front.post(text("a")).key("one").send().await.status, 200);
        let waits = front.post(text("b")).key("one").send_meanwhile();
        front.reaches(WAITING, 1.0).await;
        assert_eq!(front.calls(), calls, "{reported:?}");
        front.stub.down().await;
        let begun = Instant::now();
        assert_eq!(front.post(text("c")).key("two").send().await.cache(), "mock");
        let answer = waits.await.expect("the request does not panic");
        assert_eq!((answer.status, answer.cache()), (200, "mock"), "{reported:?}: {answer:?}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{reported:?}: {:?}", begun.elapsed());
    }
}
