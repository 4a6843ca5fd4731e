//! Timeouts, the limit on connections, and the port.

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use vecho::serve::{Bound, PeerFault, ServeLimits};

use super::harness::{start, until, wide};

const SHORT: Duration = Duration::from_millis(150);

#[tokio::test]
async fn a_silent_peer_is_closed_after_the_idle_timeout_without_a_fault() {
    let served = start(ServeLimits { idle_timeout: SHORT, ..wide() }).await;
    let began = Instant::now();
    served.connect().await.assert_closes().await;
    assert!(began.elapsed() >= SHORT, "closed after {:?}", began.elapsed());
    until(|| served.seen.closed.load(SeqCst) == 1).await;
    assert_eq!(served.seen.faults(), []);
}

#[tokio::test]
async fn the_idle_timeout_starts_at_the_last_answer() {
    let served = start(ServeLimits { idle_timeout: SHORT, ..wide() }).await;
    let mut client = served.connect().await;
    for _ in 0..3 {
        assert_eq!(client.get("/").await.status(), "200");
    }
    let began = Instant::now();
    client.assert_closes().await;
    assert!(began.elapsed() + Duration::from_millis(20) >= SHORT, "closed after {:?}", began.elapsed());
}

#[tokio::test]
async fn a_slow_head_is_cut_after_the_header_timeout() {
    let served = start(ServeLimits { header_timeout: SHORT, ..wide() }).await;
    let mut client = served.connect().await;
    let began = Instant::now();
    client.send("GET / HTTP/1.1\r\n").await;
    let mut sent = 0;
    while served.seen.closed.load(SeqCst) == 0 {
        sent += 1;
        // The server may close between the check and the write.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut client.0, b"a: b\r\n").await;
        tokio::time::sleep(SHORT / 10).await;
        assert!(sent < 1000, "the head still trickles after {:?}", began.elapsed());
    }
    assert!(began.elapsed() >= SHORT);
    until(|| served.seen.faults() == [PeerFault::HeadTimeout]).await;
}

#[tokio::test]
async fn a_connection_between_two_requests_outlives_the_header_timeout() {
    let served = start(ServeLimits { header_timeout: SHORT, ..wide() }).await;
    let mut kept = served.connect().await;
    assert_eq!(kept.get("/").await.status(), "200");
    let mut dawdler = served.connect().await;
    dawdler.send("GET").await;
    dawdler.assert_closes().await;
    assert_eq!(kept.get("/").await.status(), "200");
}

#[tokio::test]
async fn a_long_call_outlives_idle_and_header_timeout() {
    let served = start(ServeLimits { header_timeout: SHORT, idle_timeout: SHORT, ..wide() }).await;
    let mut busy = served.connect().await;
    busy.send("GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await;
    until(|| served.seen.waiting.load(SeqCst) == 1).await;
    for _ in 0..2 {
        served.connect().await.assert_closes().await;
    }
    served.gate.add_permits(1);
    assert_eq!(busy.answer().await.body, "waited");
}

#[tokio::test]
async fn a_peer_that_does_not_read_its_answer_is_cut_after_the_write_timeout() {
    let served = start(ServeLimits { write_timeout: SHORT, ..wide() }).await;
    let mut client = served.connect().await;
    client.send("GET /huge HTTP/1.1\r\nhost: x\r\n\r\n").await;
    until(|| served.seen.faults() == [PeerFault::WriteStalled]).await;
    until(|| served.seen.closed.load(SeqCst) == 1).await;
}

#[tokio::test]
async fn a_connection_over_the_limit_gets_a_503_until_one_closes() {
    let served = start(ServeLimits { max_connections: 1, ..wide() }).await;
    let mut first = served.connect().await;
    assert_eq!(first.get("/").await.status(), "200");
    let mut second = served.connect().await;
    let answer = second.get("/").await;
    answer.assert_envelope("503", "server_error");
    assert_eq!(answer.header("retry-after"), Some("1"));
    second.assert_closes().await;
    assert_eq!(served.seen.rejected.load(SeqCst), 1);
    drop(first);
    until(|| served.seen.closed.load(SeqCst) == 1).await;
    assert_eq!(served.connect().await.get("/").await.status(), "200");
    assert_eq!(served.seen.opened.load(SeqCst), 2);
}

#[tokio::test]
async fn a_connection_over_the_limit_can_read_its_503_while_sending() {
    let served = start(ServeLimits { max_connections: 0, ..wide() }).await;
    let mut client = served.connect().await;
    let body = "x".repeat(8 * 1024 * 1024);
    client.send(&format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
    assert_eq!(client.answer().await.status(), "503");
}

#[tokio::test]
async fn an_occupied_port_is_named_in_the_error() {
    let served = start(wide()).await;
    let addr = served.running.local_addr();
    let error = Bound::bind(addr).await.expect_err("the port is taken").to_string();
    assert!(error.contains(&addr.to_string()) && error.contains(&format!("port {}", addr.port())), "{error}");
    assert!(error.contains("already in use"), "{error}");
}
