//! Lifetime of connections to the upstream, and keepalive on both sides.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;

use http::Request;
use http_body_util::{BodyExt as _, Full};
use serde_json::json;

use crate::harness::client::Client;
use crate::harness::scripted::{Act, Scripted, ok, one_vector};
use crate::harness::socket::Socket;
use crate::harness::{Behaviour, Inside, Stub, eventually};

#[tokio::test]
async fn a_busy_upstream_connection_is_replaced_at_its_maximum_age() {
    let server = Scripted::start(|arrival| {
        Act::Say(if arrival.head.contains("/embeddings") { one_vector(0.25) } else { ok("{}") })
    })
    .await;
    let vecho = Inside::start(&server.base_url(), &[("upstream.max_connection_age", "100ms")]).await;
    let connections = |of: &str| -> BTreeSet<usize> {
        let arrivals = server.arrivals().into_iter().filter(|arrival| arrival.head.contains(of));
        arrivals.map(|arrival| arrival.connection).collect()
    };
    let models = format!("http://{}/v1/models", vecho.public());
    eventually("four connections for each kind of request", async || {
        let text = server.arrivals().len().to_string();
        let miss = vecho.embed(json!({"model": "tiny", "input": text})).await;
        assert_eq!((miss.status, miss.cache()), (200, "miss"));
        assert_eq!(vecho.client.get(&models).await.status, 200);
        connections("/embeddings").len() >= 4 && connections("/models").len() >= 4
    })
    .await;
    assert!(server.arrivals().len() > 16, "connections are kept until they are old");
}

#[tokio::test]
async fn a_call_on_an_expired_connection_is_completed() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[("upstream.max_connection_age", "1ms")]).await;
    stub.next(Behaviour::Gate);
    let (slow, ()) = tokio::join!(vecho.embed(json!({"model": "tiny", "input": "slow"})), async {
        stub.held(1).await;
        for number in 0..5 {
            assert_eq!(vecho.embed(json!({"model": "tiny", "input": format!("{number}")})).await.status, 200);
        }
        stub.release(1);
    });
    assert_eq!(slow.vectors(), [Stub::vector("tiny", None, "slow")]);
    assert_eq!(stub.embedding_calls().len(), 6, "no call is made twice");
}

#[tokio::test]
async fn a_download_on_an_expired_connection_is_completed() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[("upstream.max_connection_age", "1ms")]).await;
    stub.hold_events();
    let request = Request::get(format!("http://{}/v1/slow-download", vecho.public())).body(Full::default());
    let mut body = vecho.client.open(request.expect("a legal request")).await.expect("headers").into_body();
    let mut received = 0;
    for piece in 1..=4 {
        while received < piece * 65_536 {
            let frame = body.frame().await.expect("more").expect("unbroken");
            received += frame.into_data().map_or(0, |data| data.len());
        }
        let answer = vecho.client.get(&format!("http://{}/v1/models", vecho.public())).await;
        assert_eq!(answer.status, 200, "another request, on a connection of its own");
        stub.release_event();
    }
    assert!(body.frame().await.is_none());
}

/// Returns true if the kernel runs a keepalive timer of at most 15 s for each socket with this peer.
fn is_kept_alive(peer: SocketAddr) -> bool {
    let SocketAddr::V4(peer) = peer else { return false };
    let address = u32::from_le_bytes(peer.ip().octets());
    let wanted = format!("{address:08X}:{:04X}", peer.port());
    let table = fs::read_to_string("/proc/net/tcp").expect("Linux shows its sockets");
    let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let timers: Vec<String> =
        fields.filter(|line| line[2] == wanted && line[3] == "01").map(|line| line[5].to_owned()).collect();
    // Timer 2 is keepalive. Its time is in hundredths of a second.
    let is_short = |left: &str| u64::from_str_radix(left, 16).is_ok_and(|left| left <= 1_500);
    !timers.is_empty() && timers.iter().all(|timer| timer.strip_prefix("02:").is_some_and(is_short))
}

#[tokio::test]
async fn sockets_on_both_sides_have_keepalive() {
    let server = Scripted::start(|_| Act::Nothing).await;
    let vecho = Inside::start(&server.base_url(), &[]).await;
    let mut caller = Socket::connect(vecho.public()).await;
    let caller_addr = caller.local_addr();
    caller.send("GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n").await;
    eventually("the request is at the upstream", async || server.arrivals().len() == 1).await;
    eventually("keepalive towards the upstream", async || is_kept_alive(server.addr())).await;
    eventually("keepalive towards the caller", async || is_kept_alive(caller_addr)).await;
}

#[tokio::test]
async fn sockets_of_the_ops_port_have_keepalive() {
    let stub = Stub::start();
    let vecho = Inside::start(&stub.base_url(), &[]).await;
    let caller = Socket::connect(vecho.admin()).await;
    let caller_addr = caller.local_addr();
    assert_eq!(Client::new().get(&format!("http://{}/metrics", vecho.admin())).await.status, 200);
    eventually("keepalive towards the caller", async || is_kept_alive(caller_addr)).await;
}
