//! Keepalive on both sides.

use std::fs;
use std::net::SocketAddr;

use crate::harness::client::Client;
use crate::harness::scripted::{Act, Scripted};
use crate::harness::socket::Socket;
use crate::harness::{Inside, Stub, eventually};

/// True if the kernel runs a keepalive timer of at most 15 s for each socket with this peer.
fn is_kept_alive(peer: SocketAddr) -> bool {
    let SocketAddr::V4(peer) = peer else { return false };
    let address = u32::from_le_bytes(peer.ip().octets());
    let wanted = format!("{address:08X}:{:04X}", peer.port());
    let table = fs::read_to_string("/proc/net/tcp").expect("Linux shows its sockets");
    let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let timers: Vec<String> =
        fields.filter(|line| line[2] == wanted && line[3] == "01").map(|line| line[5].to_owned()).collect();
    // Timer 2 is keepalive; its time is in hundredths of a second.
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
