//! Graceful shutdown of the server.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use tokio::net::TcpStream;
use vecho::serve::Drained;

use super::harness::{TIMEOUT, start, until, wide, within};

#[tokio::test]
async fn a_drain_closes_idle_connections_and_lets_calls_finish() {
    let served = start(wide()).await;
    let (mut fresh, mut kept, mut busy) = (served.connect().await, served.connect().await, served.connect().await);
    assert_eq!(kept.get("/").await.status(), "200");
    busy.send("GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await;
    until(|| served.seen.waiting.load(SeqCst) == 1 && served.running.connections() == 3).await;

    let running = served.running.clone();
    let drained = tokio::spawn(async move { running.drain(TIMEOUT).await });
    fresh.assert_closes().await;
    kept.assert_closes().await;
    until(|| served.running.connections() == 1).await;
    let refused = TcpStream::connect(served.running.local_addr()).await;
    assert_eq!(refused.map(drop).map_err(|error| error.kind()), Err(std::io::ErrorKind::ConnectionRefused));
    assert!(!drained.is_finished(), "a call is still under way");

    served.gate.add_permits(1);
    let answer = busy.answer().await;
    assert_eq!((answer.header("connection"), &*answer.body), (Some("close"), "waited"));
    busy.assert_closes().await;
    assert_eq!(within(drained).await.expect("the drain ends"), Drained { finished: 3, cut: 0 });
}

#[tokio::test]
async fn connections_that_outlive_the_drain_are_cut_and_counted() {
    let served = start(wide()).await;
    let (mut kept, mut busy) = (served.connect().await, served.connect().await);
    assert_eq!(kept.get("/").await.status(), "200");
    busy.send("GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await;
    until(|| served.seen.waiting.load(SeqCst) == 1).await;
    let drained = within(served.running.drain(Duration::from_millis(100))).await;
    assert_eq!(drained, Drained { finished: 1, cut: 1 });
    busy.assert_closes().await;
    assert_eq!(served.running.connections(), 0);
}

#[tokio::test]
async fn an_idle_server_drains_at_once() {
    let served = start(wide()).await;
    assert_eq!(within(served.running.drain(TIMEOUT * 3)).await, Drained::default());
}
