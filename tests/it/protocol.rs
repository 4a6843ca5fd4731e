//! Requests that violate HTTP are refused on both ports, and no part of them goes upstream.

use std::net::SocketAddr;

use crate::harness::Inside;
use crate::harness::ops::metric_becomes;
use crate::harness::scripted::{Act, Scripted, ok};
use crate::harness::socket::{Socket, exchange};

/// A second request, sent behind the first one. It must never be handled if the first one is refused.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// Starts vecho with an upstream that answers every request.
async fn start() -> (Scripted, Inside) {
    let server = Scripted::start(|_| Act::Say(ok("{}"))).await;
    let vecho = Inside::start(&server.base_url(), &[]).await;
    (server, vecho)
}

fn ports(vecho: &Inside) -> [SocketAddr; 2] {
    [vecho.public(), vecho.admin()]
}

/// Sends a request followed by another one to both ports. Each port must answer once, with a 400, and close.
async fn is_refused(request: &str, server: &Scripted, vecho: &Inside) {
    for port in ports(vecho) {
        let answer = exchange(port, format!("{request}{SMUGGLED}")).await;
        let lower = answer.to_lowercase();
        assert_eq!(lower.split(' ').nth(1), Some("400"), "{request:?}: {answer}");
        assert!(lower.contains("\r\nconnection: close\r\n"), "{request:?}: {answer}");
        assert!(answer.contains(r#""code":"unreadable_request""#), "{request:?}: {answer}");
        assert_eq!(lower.matches("http/1.").count(), 1, "{request:?}: {answer}");
    }
    assert!(server.arrivals().is_empty(), "{request:?} went up: {:?}", server.arrivals());
}

#[tokio::test]
async fn a_request_must_have_exactly_one_valid_host() {
    let (server, vecho) = start().await;
    let hosts = [
        "",
        "host: localhost\r\nhost: localhost\r\n",
        "host: localhost\r\nHost: other\r\n",
        "host: a b\r\n",
        "host: a/b\r\n",
        "host: user@localhost\r\n",
        "host: localhost:port\r\n",
        "host: localhost:65536\r\n",
        "host: [::1\r\n",
        "host: http://localhost\r\n",
    ];
    for host in hosts {
        is_refused(&format!("GET /livez HTTP/1.1\r\n{host}\r\n"), &server, &vecho).await;
    }
    for request in [
        "GET http://localhost/livez HTTP/1.1\r\nhost:\r\n\r\n",
        "GET http://localhost/livez HTTP/1.1\r\n\r\n",
        "GET http:///livez HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "GET http://user@localhost/livez HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "GET /livez HTTP/1.0\r\nhost: localhost\r\nhost: localhost\r\n\r\n",
    ] {
        is_refused(request, &server, &vecho).await;
    }
    metric_becomes(vecho.admin(), r#"vecho_rejected_total{reason="header"}"#, 30.0).await;
}

#[tokio::test]
async fn requests_of_http_1_0_and_with_an_absolute_target_are_answered() {
    let (_server, vecho) = start().await;
    for request in [
        "GET /livez HTTP/1.0\r\n\r\n",
        "GET /livez HTTP/1.0\r\nhost: localhost\r\n\r\n",
        "GET http://localhost/livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        "GET http://LOCALHOST:80/livez HTTP/1.1\r\nhost: another.example\r\nconnection: close\r\n\r\n",
        "GET /livez HTTP/1.1\r\nhost: [::1]:7862\r\nconnection: close\r\n\r\n",
    ] {
        for port in ports(&vecho) {
            let answer = exchange(port, request).await;
            assert!(answer.split(' ').nth(1) == Some("200"), "{request:?}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_body_of_an_unclear_length_is_refused() {
    let (server, vecho) = start().await;
    for framing in [
        "content-length: 4\r\ncontent-length: 5\r\n",
        "content-length: 4, 5\r\n",
        "content-length: +4\r\n",
        "content-length: -4\r\n",
        "content-length: 0x4\r\n",
        "content-length: 99999999999999999999\r\n",
        "transfer-encoding: gzip\r\n",
        "transfer-encoding: identity\r\n",
        "transfer-encoding: chunked, gzip\r\n",
        "transfer-encoding: gzip, chunked\r\n",
        "transfer-encoding: chunked, chunked\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: x\r\n",
        "transfer-encoding: xchunked\r\n",
    ] {
        let request = format!("POST /v1/files HTTP/1.1\r\nhost: localhost\r\n{framing}\r\n4\r\nbody\r\n0\r\n\r\n");
        is_refused(&request, &server, &vecho).await;
    }
    let old = "POST /v1/files HTTP/1.0\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n";
    is_refused(old, &server, &vecho).await;
}

#[tokio::test]
async fn folded_or_broken_header_lines_are_refused() {
    let (server, vecho) = start().await;
    for line in [
        "x-folded: a\r\n b\r\n",
        "x-folded: a\r\n\tb\r\n",
        " x-first: a\r\n",
        "x-space : a\r\n",
        "x-tab\t: a\r\n",
        "x-return: a\rb\r\n",
        "x-nul: a\0b\r\n",
        "x-without-colon\r\n",
        ": without name\r\n",
        "x(odd): a\r\n",
    ] {
        is_refused(&format!("GET /livez HTTP/1.1\r\n{line}host: localhost\r\n\r\n"), &server, &vecho).await;
        is_refused(&format!("GET /livez HTTP/1.1\r\nhost: localhost\r\n{line}\r\n"), &server, &vecho).await;
    }
    for line in ["GET  /livez HTTP/1.1", "GET /livez  HTTP/1.1", "GET /li vez HTTP/1.1", "GET /livez HTTP/1.2"] {
        is_refused(&format!("{line}\r\nhost: localhost\r\n\r\n"), &server, &vecho).await;
    }
}

#[tokio::test]
async fn a_body_with_a_length_and_a_transfer_coding_is_refused() {
    let (server, vecho) = start().await;
    for both in [
        "content-length: 14\r\ntransfer-encoding: chunked",
        "Transfer-Encoding: chunked\r\nx: y\r\nContent-Length: 3",
        "CONTENT-LENGTH: 14\r\nTRANSFER-ENCODING: Chunked\r\ncontent-length: 14",
    ] {
        let request = format!("POST /v1/files HTTP/1.1\r\nhost: localhost\r\n{both}\r\n\r\n4\r\nbody\r\n0\r\n\r\n");
        is_refused(&request, &server, &vecho).await;
    }
}

/// RFC 9112, section 6.1. Heads that arrive together with an earlier request are not scanned for two lengths.
#[tokio::test]
async fn a_pipelined_transfer_coding_overrides_the_length_and_ends_the_connection() {
    let (server, vecho) = start().await;
    let codings =
        ["content-length: 11\r\ntransfer-encoding: chunked", "transfer-encoding: chunked\r\ncontent-length: 3"];
    for both in codings {
        let first = "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";
        let head = format!("POST /v1/files HTTP/1.1\r\nhost: localhost\r\n{both}\r\n\r\n");
        for port in ports(&vecho) {
            let answer = exchange(port, format!("{first}{head}4\r\nbody\r\n0\r\n\r\n{SMUGGLED}")).await;
            assert_eq!(answer.matches("HTTP/1.1 ").count(), 2, "{both}: {answer}");
        }
    }
    let arrivals = server.arrivals();
    assert!(arrivals.iter().all(|arrival| !arrival.head.contains("/smuggled")), "{arrivals:?}");
    // The server sees a chunked body as another request.
    let posts: Vec<_> = arrivals.iter().filter(|arrival| arrival.head.starts_with("POST")).collect();
    assert_eq!(posts.len(), 2, "{arrivals:?}");
    for arrival in posts {
        assert_eq!(arrival.header("transfer-encoding"), Some("chunked"), "{arrival:?}");
        assert_eq!(arrival.header("content-length"), None, "{arrival:?}");
    }
}

#[tokio::test]
async fn a_bare_line_feed_does_not_smuggle_a_header() {
    let (server, vecho) = start().await;
    let head = "GET /v1/models HTTP/1.1\r\nhost: localhost\r\nx-one: 1\nx-two: 2\r\nconnection: close\r\n\r\n";
    exchange(vecho.public(), head).await;
    let arrivals = server.arrivals();
    let sent = |name| arrivals.first().and_then(|arrival| arrival.header(name));
    assert_eq!((sent("x-one"), sent("x-two")), (Some("1"), Some("2")), "two lines are two headers: {arrivals:?}");
}

#[tokio::test]
async fn trace_is_refused_on_both_ports_without_echoing_headers() {
    let server = Scripted::start(|_| Act::Say(ok("{}"))).await;
    let vecho = Inside::start(&server.base_url(), &[("upstream.api_key", "sk-held")]).await;
    for port in ports(&vecho) {
        for path in ["/", "/v1/embeddings", "/metrics"] {
            let request = format!(
                "TRACE {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer sk-caller\r\nconnection: close\r\n\r\n"
            );
            let answer = exchange(port, request).await;
            let is_known = port == vecho.public() || path != "/v1/embeddings";
            let status = if is_known { "405" } else { "404" };
            assert_eq!(answer.split(' ').nth(1), Some(status), "{path}: {answer}");
            assert!(!answer.contains("sk-"), "{path}: {answer}");
        }
    }
    assert!(server.arrivals().is_empty());
}

#[tokio::test]
async fn a_bad_head_closes_a_reused_connection() {
    let (_server, vecho) = start().await;
    for port in ports(&vecho) {
        let mut socket = Socket::connect(port).await;
        socket.send("GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        assert!(socket.read_until("\r\n\r\n").await.starts_with("HTTP/1.1 200"));
        socket.send("GET /livez HTTP/1.1\r\nhost: a b\r\n\r\n").await;
        socket.offer(SMUGGLED).await;
        let rest = socket.read_to_end().await;
        assert_eq!(rest.matches("HTTP/1.1 ").count(), 1, "{rest}");
        assert!(rest.contains("HTTP/1.1 400 "), "{rest}");
    }
}
