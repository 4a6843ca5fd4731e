//! TLS on both sides: an upstream with a private root certificate, the public port of the real binary, bad files,
//! occupied ports.

use std::net::TcpListener;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::client::post;
use crate::harness::tls::{Folder, Identity, front, send};
use crate::harness::{Inside, Stub, Vecho, eventually};

fn ask(text: &str) -> Value {
    json!({"model": "tiny", "input": text})
}

/// Disables retries and the fallback.
const PLAIN: [(&str, &str); 2] = [("retry.max_attempts", "1"), ("fallback.mode", "error")];

#[tokio::test]
async fn an_upstream_is_trusted_by_the_roots_in_the_configured_file() {
    let (stub, folder, identity) = (Stub::start(), Folder::new("ca-file"), Identity::new("localhost"));
    let addr = front(&identity, stub.addr()).await;
    let upstream = format!("https://localhost:{}/v1", addr.port());
    let ca_file = folder.write("ca.pem", &identity.cert_pem);
    let trusting = Inside::start(&upstream, &[&PLAIN[..], &[("upstream.ca_file", &ca_file)]].concat()).await;
    let answer = trusting.embed(ask("x")).await;
    assert_eq!((answer.status, answer.vectors()), (200, vec![Stub::vector("tiny", None, "x")]));
    let models = trusting.client.get(&format!("http://{}/v1/models", trusting.public())).await;
    assert_eq!(models.status, 200);
    let doubting = Inside::start(&upstream, &PLAIN).await;
    let answer = doubting.embed(ask("x")).await;
    assert_eq!((answer.status, answer.error().1), (502, json!("upstream_unavailable")));
    assert_eq!(stub.calls().len(), 2, "no request is sent to a server that is not trusted");
}

#[tokio::test]
async fn an_upstream_without_a_tls_handshake_fails_after_the_connect_timeout() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port must be free");
    let upstream = format!("https://{}/v1", silent.local_addr().expect("it listens"));
    let settings = [("upstream.connect_timeout", "200ms"), ("retry.max_attempts", "1")];
    let vecho = Inside::start(&upstream, &[&PLAIN[..], &settings].concat()).await;
    let answer = vecho.embed(ask("x")).await;
    let message = answer.json()["error"]["message"].to_string();
    assert!(answer.status == 502 && message.contains("upstream.connect_timeout"), "{} {message}", answer.status);
}

#[tokio::test]
async fn a_certificate_for_another_host_makes_the_upstream_unavailable() {
    let (stub, folder, identity) = (Stub::start(), Folder::new("ca-host"), Identity::new("elsewhere.example"));
    let addr = front(&identity, stub.addr()).await;
    let ca_file = folder.write("ca.pem", &identity.cert_pem);
    let upstream = format!("https://localhost:{}/v1", addr.port());
    let vecho = Inside::start(&upstream, &[("upstream.ca_file", &ca_file), ("retry.max_attempts", "1")]).await;
    let answer = vecho.embed(ask("x")).await;
    assert_eq!((answer.status, answer.header("x-vecho-cache")), (200, Some("mock")), "as for every outage");
    assert!(stub.calls().is_empty());
}

#[tokio::test]
async fn the_public_port_serves_tls_and_reloads_its_certificate() {
    let (stub, folder) = (Stub::start(), Folder::new("public-tls"));
    let (old, new) = (Identity::new("localhost"), Identity::new("localhost"));
    let cert = folder.write("cert.pem", &old.cert_pem);
    let key = folder.write("key.pem", &old.key_pem);
    let environment = [("VECHO_TLS_CERT_FILE", cert.as_str()), ("VECHO_TLS_KEY_FILE", key.as_str())];
    let vecho = Vecho::start_with(&stub.base_url(), &environment);
    let request = || post("/v1/embeddings", &ask("x"));
    let answer = send(vecho.public(), &old, request()).await.expect("the certificate is the configured one");
    assert_eq!((answer.status, answer.vectors()), (200, vec![Stub::vector("tiny", None, "x")]));
    assert!(send(vecho.public(), &new, request()).await.is_none());
    folder.write("key.pem", "nonsense");
    vecho.signal("HUP");
    vecho.logged("its certificate stay active").await;
    assert!(send(vecho.public(), &old, request()).await.is_some(), "a bad file changes nothing");
    folder.write("cert.pem", &new.cert_pem);
    folder.write("key.pem", &new.key_pem);
    vecho.signal("HUP");
    let renewed = async || send(vecho.public(), &new, request()).await.is_some();
    eventually("the new certificate", renewed).await;
    assert!(send(vecho.public(), &old, request()).await.is_none());
}

#[tokio::test]
async fn a_changed_certificate_is_reloaded_without_a_signal() {
    let (stub, folder) = (Stub::start(), Folder::new("polled-tls"));
    let (old, new) = (Identity::new("localhost"), Identity::new("localhost"));
    let (cert, key) = (folder.write("cert.pem", &old.cert_pem), folder.write("key.pem", &old.key_pem));
    let files = [("VECHO_TLS_CERT_FILE", cert.as_str()), ("VECHO_TLS_KEY_FILE", key.as_str())];
    let environment = [&files[..], &[("VECHO_RELOAD_POLL_EVERY", "20ms")]].concat();
    let vecho = Vecho::start_with(&stub.base_url(), &environment);
    let request = || post("/v1/embeddings", &ask("x"));
    assert!(send(vecho.public(), &old, request()).await.is_some());
    folder.write("cert.pem", &new.cert_pem);
    folder.write("key.pem", &new.key_pem);
    let renewed = async || send(vecho.public(), &new, request()).await.is_some();
    eventually("the new certificate", renewed).await;
}

/// Runs the binary with further arguments until it exits, and returns its exit code and output.
fn run(environment: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Vecho::command(environment);
    command.args(arguments).stderr(Stdio::piped());
    let output = command.output().expect("the binary must run");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn assert_faulty(environment: &[(&str, &str)], named: &str) {
    let (status, said) = run(environment, &["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    assert_eq!(status, Some(64), "{said}");
    assert!(said.contains(named), "{named} is not named: {said}");
}

#[test]
fn an_unusable_certificate_ends_the_start_with_64_and_its_file_name() {
    let (folder, identity) = (Folder::new("bad-tls"), Identity::new("localhost"));
    let (good, other) = (folder.write("good.pem", &identity.cert_pem), Identity::new("localhost"));
    let nonsense = folder.write("nonsense.pem", "not a certificate");
    let (key, foreign) = (folder.write("key.pem", &identity.key_pem), folder.write("foreign.pem", &other.key_pem));
    let missing = folder.path("missing.pem").display().to_string();
    for (cert, key, named) in [
        (&nonsense, &key, &nonsense),
        (&good, &nonsense, &nonsense),
        (&missing, &key, &missing),
        (&good, &foreign, &foreign),
    ] {
        let environment = [("VECHO_TLS_CERT_FILE", cert.as_str()), ("VECHO_TLS_KEY_FILE", key.as_str())];
        assert_faulty(&environment, named);
    }
    assert_faulty(&[("VECHO_UPSTREAM_CA_FILE", &nonsense)], &nonsense);
}

#[test]
fn a_port_that_is_taken_fails_the_start_and_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a loopback port must bind");
    let addr = taken.local_addr().expect("a bound socket has an address").to_string();
    let port = addr.rsplit(':').next().expect("an address has a port");
    for ports in
        [["--listen", &addr, "--admin-listen", "127.0.0.1:0"], ["--listen", "127.0.0.1:0", "--admin-listen", &addr]]
    {
        let (status, said) = run(&[], &ports);
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains(port) && said.contains("already in use"), "{said}");
    }
}

#[test]
fn check_and_start_report_every_certificate_fault_by_its_key() {
    let (folder, own, other) = (Folder::new("check"), Identity::new("localhost"), Identity::new("localhost"));
    let (cert, key) = (folder.write("cert.pem", &own.cert_pem), folder.write("key.pem", &own.key_pem));
    let strange = folder.write("strange.pem", &other.key_pem);
    let nonsense = folder.write("nonsense.pem", "nonsense");
    let run = |command: &str, files: &[(&str, &str)]| {
        let ports = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"].map(str::to_owned);
        let set = files.iter().flat_map(|(key, file)| ["--set".to_owned(), format!("{key}={file}")]);
        let mut vecho = Command::new(env!("CARGO_BIN_EXE_vecho"));
        vecho.env_clear().arg(command).args(ports).args(set).output().expect("vecho runs")
    };
    let good = [("upstream.ca_file", &*cert), ("tls.cert_file", &cert), ("tls.key_file", &key)];
    let good = run("check", &[&good[..], &[("redis.ca_file", &cert)]].concat());
    assert_eq!((good.status.code(), &*good.stdout), (Some(0), &b"configuration ok\n"[..]), "{good:?}");
    for command in ["check", "serve"] {
        let bad = run(
            command,
            &[
                ("upstream.ca_file", &nonsense),
                ("redis.ca_file", &key),
                ("tls.cert_file", &nonsense),
                ("tls.key_file", &cert),
                ("redis.cert_file", &cert),
                ("redis.key_file", &strange),
            ],
        );
        let faults = String::from_utf8(bad.stderr).expect("faults are text");
        assert_eq!((bad.status.code(), &*bad.stdout), (Some(64), &b""[..]), "{command}: {faults}");
        for key in ["upstream.ca_file", "redis.ca_file", "tls.cert_file", "tls.key_file", "redis.key_file"] {
            let named = faults.lines().any(|line| line.starts_with(&format!("{key} (--set): ")));
            assert!(named, "{command}: {key} in\n{faults}");
        }
        assert_eq!(faults.lines().count(), 5, "{command}: {faults}");
    }
}
