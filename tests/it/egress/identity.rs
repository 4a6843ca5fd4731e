//! The client certificate for the upstream.

use super::proxies::{PLAIN, ask};
use crate::harness::tls::{Folder, Identity, front_for};
use crate::harness::{Client, Inside, Stub, Vecho, eventually};

#[tokio::test]
async fn a_client_certificate_is_sent_with_calls_and_pass_through_requests() {
    let (stub, folder) = (Stub::start(), Folder::new("client-cert"));
    let (server, client) = (Identity::new("localhost"), Identity::new("vecho"));
    let addr = front_for(&server, stub.addr(), &[&client]).await;
    let upstream = format!("https://localhost:{}/v1", addr.port());
    let ca_file = folder.write("ca.pem", &server.cert_pem);
    let (cert, key) = (folder.write("cert.pem", &client.cert_pem), folder.write("key.pem", &client.key_pem));
    let trust = [&PLAIN[..], &[("upstream.ca_file", &ca_file)]].concat();
    let known = [&trust[..], &[("upstream.cert_file", &cert), ("upstream.key_file", &key)]].concat();
    let known = Inside::start(&upstream, &known).await;
    assert_eq!(known.embed(ask("x")).await.vectors(), [Stub::vector("tiny", None, "x")]);
    let models = known.client.get(&format!("http://{}/v1/models", known.public())).await;
    assert_eq!(models.status, 200);
    let unknown = Inside::start(&upstream, &trust).await;
    assert_eq!(unknown.embed(ask("y")).await.status, 502);
    assert_eq!(stub.calls().len(), 2);
}

#[tokio::test]
async fn a_replaced_client_certificate_is_used_for_new_connections() {
    let (stub, folder) = (Stub::start(), Folder::new("client-reload"));
    let (server, old, new) = (Identity::new("localhost"), Identity::new("old"), Identity::new("new"));
    let both = format!("https://localhost:{}/v1", front_for(&server, stub.addr(), &[&old]).await.port());
    let ca_file = folder.write("ca.pem", &server.cert_pem);
    let (cert, key) = (folder.write("cert.pem", &new.cert_pem), folder.write("key.pem", &new.key_pem));
    let environment = [
        ("VECHO_UPSTREAM_CA_FILE", ca_file.as_str()),
        ("VECHO_UPSTREAM_CERT_FILE", cert.as_str()),
        ("VECHO_UPSTREAM_KEY_FILE", key.as_str()),
        ("VECHO_UPSTREAM_MAX_CONNECTION_AGE", "1ms"),
        ("VECHO_RELOAD_POLL_EVERY", "20ms"),
        ("VECHO_BREAKER_OPEN_FOR", "10ms"),
        ("VECHO_BREAKER_MAX_OPEN", "10ms"),
        ("VECHO_FALLBACK_MODE", "error"),
    ];
    let vecho = Vecho::start_with(&both, &environment);
    let url = format!("{}/models", vecho.base_url());
    assert_eq!(Client::new().get(&url).await.status, 502, "this server knows only the other certificate");
    folder.write("cert.pem", "nonsense");
    vecho.logged("configuration reload rejected").await;
    folder.write("key.pem", &old.key_pem);
    folder.write("cert.pem", &old.cert_pem);
    eventually("the new certificate", async || Client::new().get(&url).await.status == 200).await;
    let log = vecho.stop().log;
    assert!(log.contains("cert.pem holds no usable PEM certificate chain"), "{log}");
}

#[test]
fn client_certificates_that_cannot_be_used_are_faults() {
    let folder = Folder::new("client-faults");
    let (own, other) = (Identity::new("own"), Identity::new("other"));
    let (cert, key) = (folder.write("cert.pem", &own.cert_pem), folder.write("key.pem", &own.key_pem));
    let strange = folder.write("strange.pem", &other.key_pem);
    let missing = folder.path("none.pem").display().to_string();
    let run = |settings: &[(&str, &str)]| {
        let set = settings.iter().flat_map(|(key, value)| ["--set".to_owned(), format!("{key}={value}")]);
        let mut command = Vecho::command(&[]);
        let output = command.arg("check").args(set).stderr(std::process::Stdio::piped()).output();
        let output = output.expect("the binary must run");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (settings, parts) in [
        (&[("upstream.cert_file", &*cert)][..], ["upstream.cert_file", "needs upstream.key_file beside it"]),
        (&[("upstream.key_file", &key)], ["upstream.key_file", "needs upstream.cert_file beside it"]),
        (&[("upstream.cert_file", &missing), ("upstream.key_file", &key)], ["upstream.cert_file", "cannot be read"]),
        (
            &[("upstream.cert_file", &cert), ("upstream.key_file", &strange)],
            ["upstream.key_file", "cannot be used with"],
        ),
        (
            &[("upstream.cert_file", &key), ("upstream.key_file", &key)],
            ["upstream.cert_file", "no usable PEM certificate"],
        ),
    ] {
        let (status, said) = run(settings);
        assert_eq!(status, Some(64), "{said}");
        assert!(parts.iter().all(|part| said.contains(part)), "{parts:?}: {said}");
    }
    assert_eq!(run(&[("upstream.cert_file", &cert), ("upstream.key_file", &key)]).0, Some(0));
}
