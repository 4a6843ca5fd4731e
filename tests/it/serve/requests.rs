//! Requests of all kinds: malformed heads, bodies that stall or are too large, panics, upgrades.

use std::sync::atomic::Ordering::SeqCst;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vecho::serve::{PeerFault, ServeLimits};

use super::harness::{ECHO_BYTES, start, until, wide, within};

#[tokio::test]
async fn a_head_that_is_not_http_gets_a_400_envelope() {
    let served = start(wide()).await;
    let mut client = served.connect().await;
    client.send("what is this\r\n\r\n").await;
    client.answer().await.assert_envelope("400", "invalid_request_error");
    client.assert_closes().await;
    until(|| served.seen.faults() == [PeerFault::UnreadableHead]).await;
}

#[tokio::test]
async fn a_head_over_the_limit_gets_a_431_envelope() {
    let served = start(ServeLimits { max_header_bytes: 8 * 1024, ..wide() }).await;
    let mut client = served.connect().await;
    client.send(&format!("GET / HTTP/1.1\r\nhost: x\r\nlong: {}\r\n\r\n", "x".repeat(64 * 1024))).await;
    client.answer().await.assert_envelope("431", "invalid_request_error");
    until(|| served.seen.faults() == [PeerFault::HeadTooLarge]).await;
}

#[tokio::test]
async fn a_head_just_under_the_limit_is_served() {
    let served = start(ServeLimits { max_header_bytes: 64 * 1024, ..wide() }).await;
    let mut client = served.connect().await;
    client.send(&format!("GET / HTTP/1.1\r\nhost: x\r\nlong: {}\r\n\r\n", "x".repeat(60 * 1024))).await;
    assert_eq!(client.answer().await.status(), "200");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_and_trailing_garbage_gets_a_400() {
    let served = start(wide()).await;
    let mut client = served.connect().await;
    client.send("GET /a HTTP/1.1\r\nhost: x\r\n\r\nGET /peer HTTP/1.1\r\nhost: x\r\n\r\n\x01garbage\r\n\r\n").await;
    assert_eq!(client.answer().await.body, "hello");
    assert!(client.answer().await.body.ends_with(" false"));
    client.answer().await.assert_envelope("400", "invalid_request_error");
}

#[tokio::test]
async fn a_request_that_expects_100_continue_gets_it() {
    let served = start(wide()).await;
    let mut client = served.connect().await;
    client.send("POST /echo HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n").await;
    assert_eq!(client.answer().await.status(), "100");
    client.send("abcde").await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), &*answer.body), ("200", "abcde"));
}

#[tokio::test]
async fn a_stalled_body_times_out() {
    let served = start(wide()).await;
    let mut client = served.connect().await;
    client.send("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nab").await;
    let answer = client.answer().await;
    assert!(answer.body.starts_with("no part of the body arrived for 300 ms"), "{answer:?}");
}

#[tokio::test]
async fn a_truncated_body_is_not_accepted() {
    let served = start(wide()).await;
    let mut client = served.connect().await;
    client.send("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nab").await;
    within(client.0.shutdown()).await.expect("the connection is open");
    let mut said = String::new();
    within(client.0.read_to_string(&mut said)).await.expect("the server closes in order");
    assert!(!said.contains("200 OK"), "{said}");
}

#[tokio::test]
async fn a_chunked_body_is_collected_and_an_oversized_one_is_refused() {
    let served = start(wide()).await;
    let mut client = served.connect().await;
    let head = "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    client.send(&format!("{head}3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")).await;
    assert_eq!(client.answer().await.body, "abcde");
    client.send(&format!("{head}400\r\n{}\r\n0\r\n\r\n", "x".repeat(1024))).await;
    assert_eq!(client.answer().await.body, format!("the body is larger than {ECHO_BYTES} bytes"));
}

#[tokio::test]
async fn a_peer_that_still_sends_a_large_body_gets_to_read_the_refusal() {
    let served = start(wide()).await;
    let mut client = served.connect().await;
    let body = "x".repeat(8 * 1024 * 1024);
    client.send(&format!("POST /unheard HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), &*answer.body), ("413", "unheard"));
}

#[tokio::test]
async fn a_panic_closes_its_own_connection_and_no_other() {
    let served = start(wide()).await;
    let mut bystander = served.connect().await;
    assert_eq!(bystander.get("/").await.status(), "200");
    let mut client = served.connect().await;
    client.send("GET /panic HTTP/1.1\r\nhost: x\r\n\r\n").await;
    client.assert_closes().await;
    assert_eq!(bystander.get("/").await.status(), "200");
    until(|| served.running.connections() == 1 && served.seen.closed.load(SeqCst) == 1).await;
}

#[tokio::test]
async fn an_upgraded_connection_is_open_until_its_tunnel_ends() {
    let served = start(wide()).await;
    let mut client = served.connect().await;
    client.send("GET /tunnel HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: bytes\r\n\r\n").await;
    assert_eq!(client.answer().await.status(), "101");
    client.send("!").await;
    assert_eq!(within(client.0.read_u8()).await.expect("the tunnel answers"), b'!');
    until(|| served.running.connections() == 0).await;
    assert_eq!(served.seen.closed.load(SeqCst), 0);
    drop(client);
    until(|| served.seen.closed.load(SeqCst) == 1).await;
}
