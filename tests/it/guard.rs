//! Access to the ops port over real sockets: all routes, from loopback and from another host, with and without a token.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use serde_json::{Value, json};

use crate::harness::socket::{Socket, exchange};
use crate::harness::{Inside, Stub, eventually};

const TOKEN: &str = "authorization: Bearer t0ken\r\n";
const WRONG: &str = "authorization: Bearer t0kem\r\n";

/// Routes that never require the token.
const OPEN: &[&str] = &["GET /metrics", "GET /livez", "GET /readyz", "GET /dashboard/main.js", "GET /dashboard/"];
/// Routes with figures. They are open to other hosts if no token is set.
const FIGURES: &[&str] =
    &["GET /", "GET /api/performance/stats", "GET /api/performance/health", "GET /api/performance/cache/stats"];
/// All other routes.
const PRIVATE: &[&str] = &[
    "GET /api/dashboard",
    "HEAD /api/events",
    "GET /api/config",
    "GET /api/performance/cache/export",
    "HEAD /api/performance/cache/export",
    "POST /api/performance/cache/import",
    "POST /api/performance/cache/explain",
    "POST /api/performance/optimize-memory",
    "PUT /api/log-level",
    "DELETE /api/performance/cache",
];
/// Values of `Host` that name another machine, or imitate the name of this one.
const FOREIGN: &[&str] = &["evil.example", "localhost.evil.example", "127.0.0.1.evil.example"];
/// Names that lenient parsers accept as this machine. As `Host` they are malformed.
const MALFORMED: &[&str] = &["[::1]evil.example", "[::1].evil.example", "evil@localhost"];

async fn start(pairs: &[(&str, &str)]) -> Inside {
    Inside::start("mock:", &[&[("admin_listen", "0.0.0.0:0")], pairs].concat()).await
}

fn near(vecho: &Inside) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, vecho.admin().port()).into()
}

/// Returns the ops port at an address of this machine that is not loopback. A connection to such an address comes
/// from that address, so vecho treats it as another host. Returns `None` on a machine without a network.
#[expect(clippy::print_stderr, reason = "a test that leaves a part out must say so")]
fn far(vecho: &Inside) -> Option<SocketAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // Sends nothing: `connect` on a UDP socket only looks up the route. The address is reserved for documentation.
    socket.connect("198.51.100.1:9").ok()?;
    let own = socket.local_addr().ok()?.ip();
    let found = !own.is_loopback() && !own.is_unspecified();
    if !found {
        eprintln!("this machine has no address beside loopback, so the part with a far peer is left out");
    }
    found.then(|| (own, vecho.admin().port()).into())
}

async fn answer(addr: SocketAddr, line: &str, headers: &str) -> String {
    let body = if line.ends_with("log-level") { "info" } else { "" };
    let length = body.len();
    let head = format!("{line} HTTP/1.1\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}");
    exchange(addr, head).await
}

/// Returns true if the guard let a request pass. An empty import fails with 400 after the guard.
async fn passes(addr: SocketAddr, line: &str, headers: &str) -> bool {
    let answer = answer(addr, line, headers).await;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    assert!(["200", "308", "400", "403"].contains(&status), "{line} {headers}: {answer}");
    assert_eq!(status == "400", line.contains("import") && status != "403", "{line} {headers}: {answer}");
    status != "403"
}

fn all() -> impl Iterator<Item = (&'static str, bool)> {
    let closed = FIGURES.iter().chain(PRIVATE);
    OPEN.iter().map(|line| (*line, true)).chain(closed.map(|line| (*line, false)))
}

fn hosts() -> impl Iterator<Item = String> {
    ["localhost", "127.0.0.1:7862", "[::1]"].iter().chain(FOREIGN).map(|host| format!("host: {host}\r\n"))
}

#[tokio::test]
async fn the_token_is_required_by_all_routes_but_probes_metrics_and_page() {
    let vecho = start(&[("admin.token", "t0ken")]).await;
    for addr in [Some(near(&vecho)), far(&vecho)].into_iter().flatten() {
        for host in hosts() {
            for (line, is_open) in all() {
                assert_eq!(passes(addr, line, &host).await, is_open, "{addr} {line} {host}");
                assert_eq!(passes(addr, line, &format!("{host}{WRONG}")).await, is_open, "{addr} {line} {host}");
            }
        }
        let headers = format!("host: evil.example\r\norigin: https://evil.example\r\n{TOKEN}");
        for (line, _) in all() {
            assert!(passes(addr, line, &headers).await, "{addr} {line}");
        }
        let page = answer(addr, "GET /", "host: vecho.example\r\naccept: text/html\r\n").await;
        assert!(page.starts_with("HTTP/1.1 200 ") && page.contains("text/html"), "{page}");
    }
}

#[tokio::test]
async fn without_a_token_remote_peers_can_read_only_figures() {
    let vecho = start(&[]).await;
    let Some(far) = far(&vecho) else { return };
    for host in hosts().chain([format!("host: {far}\r\n")]) {
        for headers in [host.clone(), format!("{host}{WRONG}"), format!("{host}origin: http://localhost\r\n")] {
            for line in OPEN.iter().chain(FIGURES) {
                assert!(passes(far, line, &headers).await, "{line} {headers}");
            }
            for line in PRIVATE {
                assert!(!passes(far, line, &headers).await, "{line} {headers}");
            }
        }
    }
}

#[tokio::test]
async fn without_a_token_loopback_peers_need_a_local_host_and_origin() {
    let vecho = start(&[]).await;
    let near = near(&vecho);
    for headers in ["host: localhost\r\n", "host: [::1]:7862\r\norigin: http://127.0.0.1:7862\r\n"] {
        for (line, _) in all() {
            assert!(passes(near, line, headers).await, "{line} {headers}");
        }
    }
    for foreign in FOREIGN {
        for headers in [format!("host: {foreign}\r\n"), format!("host: localhost\r\norigin: http://{foreign}\r\n")] {
            for line in PRIVATE {
                assert!(!passes(near, line, &headers).await, "{line} {headers}");
            }
        }
    }
    for malformed in MALFORMED {
        for line in PRIVATE {
            let answer = answer(near, line, &format!("host: {malformed}\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{line} {malformed}: {answer}");
            let origin = format!("host: localhost\r\norigin: http://{malformed}\r\n");
            assert!(!passes(near, line, &origin).await, "{line} {origin}");
        }
    }
}

#[tokio::test]
async fn remote_peers_see_health_without_incidents_and_causes() {
    let stub = Stub::start();
    let pairs = [("admin_listen", "0.0.0.0:0"), ("retry.max_attempts", "1"), ("fallback.mode", "error")];
    let vecho = Inside::start(&stub.base_url(), &pairs).await;
    stub.down().await;
    let health = async |addr| {
        let text = answer(addr, "GET /api/performance/health", "host: localhost\r\n").await;
        let (_, body) = text.split_once("\r\n\r\n").expect("a head");
        serde_json::from_str::<Value>(body).expect("JSON")
    };
    eventually("an incident is known", async || {
        vecho.embed(json!({"model": "tiny", "input": "a"})).await;
        health(near(&vecho)).await["incidents"].as_array().is_some_and(|all| !all.is_empty())
    })
    .await;
    let full = health(near(&vecho)).await;
    assert!(full["warnings"].to_string().contains("unreachable"), "{full}");
    let Some(far) = far(&vecho) else { return };
    let figures = health(far).await;
    assert_eq!((&figures["status"], figures.get("incidents")), (&full["status"], None));
    let warnings = figures["warnings"].to_string();
    assert!(warnings.contains("requests fail") && !warnings.contains("unreachable"), "{figures}");
}

/// Opens an event stream. Returns `None` if it is refused.
async fn events(addr: SocketAddr) -> Option<Socket> {
    let mut socket = Socket::connect(addr).await;
    socket.send(format!("GET /api/events HTTP/1.1\r\nhost: localhost\r\n{TOKEN}\r\n")).await;
    socket.read_until("\r\n\r\n").await.starts_with("HTTP/1.1 200 ").then_some(socket)
}

#[tokio::test]
async fn one_remote_peer_cannot_use_all_event_streams() {
    let vecho = start(&[("admin.token", "t0ken")]).await;
    let Some(far) = far(&vecho) else { return };
    let mut open = Vec::new();
    for _ in 0..40 {
        open.extend(events(far).await);
    }
    assert_eq!(open.len(), 8);
    let mut own = Vec::new();
    for _ in 0..9 {
        own.extend(events(near(&vecho)).await);
    }
    assert_eq!(own.len(), 8, "the rest of the sixteen places");
    open.pop();
    eventually("the place of a stream that ended is free", async || events(far).await.is_some()).await;
}
