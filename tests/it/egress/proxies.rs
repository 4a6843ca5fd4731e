//! Calls through a real forward proxy.

use serde_json::{Value, json};

use crate::harness::socket::Socket;
use crate::harness::tinyproxy::Tinyproxy;
use crate::harness::tls::{Folder, Identity, front};
use crate::harness::{Client, Collector, Inside, Stub, Vecho, eventually};

const LOGIN: &str = "BasicAuth me s3cr3t";

/// Errors are returned as they are, at the first attempt.
pub(super) const PLAIN: [(&str, &str); 2] = [("retry.max_attempts", "1"), ("fallback.mode", "error")];

pub(super) fn ask(text: &str) -> Value {
    json!({"model": "tiny", "input": text})
}

/// Asserts that embeddings calls and pass-through requests are answered.
async fn assert_served(vecho: &Inside, text: &str) {
    let answer = vecho.embed(ask(text)).await;
    assert_eq!((answer.status, answer.vectors()), (200, vec![Stub::vector("tiny", None, text)]));
    let models = vecho.client.get(&format!("http://{}/v1/models", vecho.public())).await;
    assert_eq!(models.status, 200);
}

#[tokio::test]
async fn https_calls_go_through_a_tunnel_with_credentials() {
    let (stub, folder, identity) = (Stub::start(), Folder::new("tunnel"), Identity::new("localhost"));
    let port = front(&identity, stub.addr()).await.port();
    let (upstream, ca_file) = (format!("https://localhost:{port}/v1"), folder.write("ca.pem", &identity.cert_pem));
    let proxy = Tinyproxy::start(&[LOGIN]);
    let url = proxy.url("me:s3cr3t@");
    let settings = [&PLAIN[..], &[("upstream.ca_file", &ca_file), ("upstream.proxy", &url)]].concat();
    let vecho = Inside::start(&upstream, &settings).await;
    assert_served(&vecho, "x").await;
    assert_eq!(proxy.requests(&format!("CONNECT localhost:{port} ")), 2, "{}", proxy.log());
    assert!(stub.calls().iter().all(|call| call.header("proxy-authorization").is_none()));
}

#[tokio::test]
async fn http_calls_are_forwarded_with_credentials_and_websockets_get_a_tunnel() {
    let (stub, proxy) = (Stub::start(), Tinyproxy::start(&[LOGIN]));
    let (addr, url) = (stub.addr(), proxy.url("me:s3cr3t@"));
    let vecho = Inside::start(&stub.base_url(), &[&PLAIN[..], &[("upstream.proxy", &url)]].concat()).await;
    assert_served(&vecho, "x").await;
    assert_eq!(proxy.requests(&format!("POST http://{addr}/v1/embeddings ")), 1, "{}", proxy.log());
    assert_eq!(proxy.requests(&format!("GET http://{addr}/v1/models ")), 1, "{}", proxy.log());
    for call in stub.calls() {
        assert_eq!((call.header("host"), call.header("proxy-authorization")), (Some(&*addr.to_string()), None));
        assert!(call.header("via").is_some_and(|via| via.contains("tinyproxy")), "{:?}", call.headers);
    }
    let mut client = Socket::connect(vecho.public()).await;
    client.send("GET /v1/realtime HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n").await;
    assert!(client.read_until("\r\n\r\n").await.starts_with("HTTP/1.1 101"));
    client.send("ping").await;
    client.read_until("ping").await;
    assert_eq!(proxy.requests(&format!("CONNECT {addr} ")), 1, "{}", proxy.log());
}

#[tokio::test]
async fn a_proxy_with_tls_is_verified_by_the_same_roots() {
    let (stub, folder, identity) = (Stub::start(), Folder::new("tls-proxy"), Identity::new("localhost"));
    let upstream = format!("https://localhost:{}/v1", front(&identity, stub.addr()).await.port());
    let proxy = Tinyproxy::start(&[LOGIN]);
    let encrypted = format!("https://me:s3cr3t@localhost:{}", front(&identity, proxy.addr()).await.port());
    let ca_file = folder.write("ca.pem", &identity.cert_pem);
    let settings = [&PLAIN[..], &[("upstream.ca_file", &ca_file), ("upstream.proxy", &encrypted)]].concat();
    assert_served(&Inside::start(&upstream, &settings).await, "x").await;
    assert_served(&Inside::start(&stub.base_url(), &settings).await, "y").await;
    let doubting = Inside::start(&upstream, &[&PLAIN[..], &[("upstream.proxy", &encrypted)]].concat()).await;
    let answer = doubting.embed(ask("z")).await;
    let message = answer.json()["error"]["message"].to_string();
    assert!(answer.status == 502 && message.contains("the proxy https://localhost") && message.contains("certificate"));
}

#[tokio::test]
async fn the_environment_selects_the_proxy_and_the_start_names_it_without_credentials() {
    let (stub, proxy) = (Stub::start(), Tinyproxy::start(&[LOGIN]));
    let url = proxy.url("me:s3cr3t@");
    let served = async |environment: &[(&str, &str)], arguments: &[&str]| {
        let vecho = Vecho::start_args(&stub.base_url(), environment, arguments);
        let text = format!("{environment:?}{arguments:?}");
        let answer = Client::new().post(&format!("{}/embeddings", vecho.base_url()), &ask(&text)).await;
        assert_eq!((answer.status, answer.vectors()), (200, vec![Stub::vector("tiny", None, &*text)]));
        let log = vecho.stop().log;
        assert!(!log.contains("s3cr3t"), "{log}");
        log
    };
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
        let before = proxy.requests("POST");
        let log = served(&[(name, &url)], &[]).await;
        let line =
            format!("calls to the upstream go through the proxy http://{} ({name}), with credentials", proxy.addr());
        assert_eq!(log.matches(&line).count(), 1, "{log}");
        assert_eq!(proxy.requests("POST"), before + 1, "{}", proxy.log());
    }
    let before = proxy.requests("POST");
    for (environment, arguments) in [
        (&[("HTTP_PROXY", &*url), ("NO_PROXY", "example.com,127.0.0.0/8")][..], &[][..]),
        (&[("HTTP_PROXY", &url)], &["--set", "upstream.proxy=none"]),
        (&[("HTTPS_PROXY", &url)], &[]),
    ] {
        let log = served(environment, arguments).await;
        assert!(!log.contains("go through the proxy"), "{log}");
    }
    assert_eq!(proxy.requests("POST"), before, "these calls are direct");
}

#[tokio::test]
async fn traces_are_delivered_through_their_own_proxy() {
    let (stub, collector, proxy) = (Stub::start(), Collector::start(), Tinyproxy::start(&[LOGIN]));
    let (endpoint, url) = (collector.url(), proxy.url("me:s3cr3t@"));
    let settings = [("traces.endpoint", &*endpoint), ("traces.send_every", "10ms"), ("traces.proxy", &url)];
    let vecho = Inside::start(&stub.base_url(), &settings).await;
    assert_eq!(vecho.embed(ask("x")).await.status, 200);
    eventually("spans have arrived", async || !collector.spans().is_empty()).await;
    assert!(proxy.requests("POST http://") > 0, "{}", proxy.log());
    assert!(stub.calls()[0].header("via").is_none(), "calls to the upstream have a proxy of their own");
}
