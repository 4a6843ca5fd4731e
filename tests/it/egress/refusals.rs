//! Proxies that let no connection through, and addresses of proxies that cannot be used.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::proxies::{PLAIN, ask};
use crate::harness::scripted::{Act, Scripted, answer};
use crate::harness::tinyproxy::Tinyproxy;
use crate::harness::{Client, Inside, Stub, Vecho};

const HTTPS: &str = "https://localhost:9/v1";

/// Starts a proxy with one reaction to each request.
async fn proxy(act: impl Fn() -> Act + Send + Sync + 'static) -> Scripted {
    Scripted::start(move |_| act()).await
}

#[tokio::test]
async fn a_proxy_that_opens_no_tunnel_is_named_with_its_cause_and_leads_to_the_fallback() {
    let refused = |status: &'static str| move || Act::SayAndClose(answer(status, "", "s3cr3t page"));
    let proxies = [
        (
            proxy(refused("407 Proxy Authentication Required")).await,
            "it answers 407 Proxy Authentication Required: it does not",
        ),
        (proxy(refused("403 Filtered")).await, "it answers 403 Forbidden"),
        (proxy(refused("502 Bad Gateway")).await, "it answers 502 Bad Gateway"),
        (proxy(|| Act::SayAndClose("SSH-2.0-OpenSSH\r\n\r\n".to_owned())).await, "it did not answer CONNECT: "),
        (proxy(|| Act::SayAndClose("HTTP/1.1 200 OK\r\n\r\nearly".to_owned())).await, "it sent bytes of its own"),
        (proxy(|| Act::Close).await, "it did not answer CONNECT: "),
        (proxy(|| Act::Nothing).await, "it took longer than upstream.connect_timeout"),
    ];
    for (proxy, cause) in &proxies {
        let url = format!("http://me:s3cr3t@{}", proxy.addr());
        let settings = [("upstream.proxy", &*url), ("upstream.connect_timeout", "300ms"), ("retry.max_attempts", "1")];
        let vecho = Inside::start(HTTPS, &settings).await;
        let mock = vecho.embed(ask("x")).await;
        assert_eq!((mock.status, mock.cache()), (200, "mock"), "as for every upstream that cannot be reached");
        let plain = Inside::start(HTTPS, &[&settings[..], &PLAIN].concat()).await;
        let models = plain.client.get(&format!("http://{}/v1/models", plain.public())).await;
        for failed in [plain.embed(ask("x")).await, models] {
            let message = failed.json()["error"]["message"].to_string();
            assert_eq!(failed.status, 502, "{message}");
            let named = format!("the proxy http://{} (upstream.proxy) did not connect to localhost:9: ", proxy.addr());
            assert!(message.contains(&named) && message.contains(cause) && !message.contains("s3cr3t"), "{message}");
        }
        let arrival = &proxy.arrivals()[0];
        assert!(arrival.head.starts_with("CONNECT localhost:9 HTTP/1.1\r\n"), "{}", arrival.head);
        assert_eq!(arrival.header("proxy-authorization"), Some("Basic bWU6czNjcjN0"));
    }
}

#[tokio::test]
async fn the_connect_timeout_covers_the_proxy() {
    let silent = proxy(|| Act::Nothing).await;
    let url = silent.root_url();
    let settings = [("upstream.proxy", &*url), ("upstream.connect_timeout", "300ms")];
    let vecho = Inside::start(HTTPS, &[&PLAIN[..], &settings].concat()).await;
    let begun = Instant::now();
    assert_eq!(vecho.embed(ask("x")).await.status, 502);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_refusal_is_logged_once_until_the_proxy_lets_connections_through_again() {
    let (stub, refusing) = (Stub::start(), Tinyproxy::start(&["BasicAuth me s3cr3t"]));
    let url = refusing.url("");
    let settings = [("HTTP_PROXY", &*url), ("VECHO_FALLBACK_MODE", "error"), ("VECHO_RETRY_MAX_ATTEMPTS", "1")];
    let vecho = Vecho::start_with(&stub.base_url(), &settings);
    for text in ["a", "b", "c"] {
        let answer = Client::new().post(&format!("{}/embeddings", vecho.base_url()), &ask(text)).await;
        assert_eq!(answer.status, 502, "a status 407 of the proxy never reaches the caller");
        let models = Client::new().get(&format!("{}/models", vecho.base_url())).await;
        assert_eq!((models.status, models.header("proxy-authenticate")), (502, None));
        assert!(!format!("{:?}{:?}", answer.body, models.body).contains("s3cr3t"));
    }
    assert!(stub.calls().is_empty());
    let named =
        format!("the proxy http://{} (HTTP_PROXY) did not connect to {}: it answers 407", refusing.addr(), stub.addr());
    let named =
        format!("{named} Proxy Authentication Required: it wants credentials, which its URL can hold; calls fail");
    let metrics = Client::new().get(&vecho.ops_url("/metrics")).await;
    assert!(!String::from_utf8_lossy(&metrics.body).contains("s3cr3t"));
    let log = vecho.stop().log;
    assert_eq!(log.matches(&named).count(), 1, "{log}");
    assert!(!log.contains("s3cr3t"), "{log}");
}

#[tokio::test]
async fn credentials_that_a_real_proxy_refuses_are_named_as_the_cause() {
    let proxy = Tinyproxy::start(&["BasicAuth me s3cr3t"]);
    for (login, cause) in [("", "it wants credentials"), ("me:s3cr3t-wrong@", "it does not accept the credentials")] {
        let url = proxy.url(login);
        let vecho = Inside::start(HTTPS, &[&PLAIN[..], &[("upstream.proxy", &*url)]].concat()).await;
        let answer = vecho.embed(ask("x")).await;
        let message = answer.json()["error"]["message"].to_string();
        assert!(answer.status == 502 && message.contains(cause) && !message.contains("s3cr3t"), "{message}");
    }
}

#[tokio::test]
async fn a_proxy_that_lets_connections_through_again_is_logged() {
    let is_open = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = std::sync::Arc::clone(&is_open);
    let proxy = Scripted::start(move |_| {
        let status = if seen.load(std::sync::atomic::Ordering::Relaxed) { "200 OK" } else { "407 No" };
        Act::Say(answer(status, "", "{}"))
    })
    .await;
    let url = proxy.root_url();
    let vecho = Vecho::start_with("http://upstream.test/v1", &[("HTTP_PROXY", &url)]);
    let models = async || Client::new().get(&format!("{}/models", vecho.base_url())).await.status;
    assert_eq!((models().await, models().await), (502, 502));
    is_open.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!((models().await, models().await), (200, 200));
    let log = vecho.stop().log;
    assert_eq!(log.matches("(HTTP_PROXY) lets connections through again").count(), 1, "{log}");
    assert_eq!(log.matches("it wants credentials, which its URL can hold").count(), 1, "{log}");
}

#[test]
fn unusable_addresses_of_proxies_end_the_start_with_64_and_no_secret() {
    let run = |environment: &[(&str, &str)], set: &str| {
        let mut command: Command = Vecho::command(environment);
        command.args(["check", "--set", set]).stderr(Stdio::piped());
        let output = command.output().expect("the binary must run");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("s3cr3t"), "{said}");
        (output.status.code(), said)
    };
    for (environment, set, parts) in [
        (&[("HTTPS_PROXY", "socks5h://me:s3cr3t@proxy:1080")][..], "workers=1", ["HTTPS_PROXY (environment", "SOCKS"]),
        (&[("ALL_PROXY", "http://me:s3cr3t@:x")], "workers=1", ["ALL_PROXY (environment", "must be http://"]),
        (&[], "upstream.proxy=socks5://me:s3cr3t@proxy", ["upstream.proxy (--set)", "SOCKS"]),
        (&[], "upstream.proxy=proxy-s3cr3t:3128", ["upstream.proxy (--set)", "must be env, none"]),
        (&[], "traces.proxy=ftp://s3cr3t", ["traces.proxy (--set)", "must be http://"]),
        (&[], "upstream.proxy=http://localhost:7861", ["upstream.proxy (--set)", "is vecho itself"]),
    ] {
        let (status, said) = run(environment, set);
        assert_eq!(status, Some(64), "{said}");
        assert!(parts.iter().all(|part| said.contains(part)), "{parts:?}: {said}");
    }
    let exempt = [("HTTPS_PROXY", "socks5h://me:s3cr3t@proxy:1080"), ("no_proxy", ".openai.com")];
    assert_eq!(run(&exempt, "workers=1").0, Some(0));
    assert_eq!(run(&exempt[..1], "upstream.proxy=none").0, Some(0));
}

#[test]
fn the_effective_configuration_shows_the_proxy_without_credentials() {
    for format in ["text", "json"] {
        let mut command = Vecho::command(&[("VECHO_UPSTREAM_PROXY", "http://me:s3cr3t@proxy:3128")]);
        let output = command.args(["config", "--format", format]).stdout(Stdio::piped()).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("http://[secret]@proxy:3128") && !said.contains("s3cr3t"), "{said}");
    }
}
