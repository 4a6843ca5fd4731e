//! TLS: both protocols, bad files, and certificates that change while the server runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use vecho::config;
use vecho::serve::{Drained, PeerFault, ServeLimits, Tls};

use super::harness::{Client, HUGE_BYTES, Served, TIMEOUT, start_with, until, wide, within};

/// A certificate and its key in files that are removed on drop.
struct Identity {
    files: config::TlsConfig,
    folder: PathBuf,
    root: CertificateDer<'static>,
}

impl Identity {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("vecho-tls-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("the temporary folder can be written");
        let files = config::TlsConfig { cert_file: folder.join("cert.pem"), key_file: folder.join("key.pem") };
        let root = write_pair(&files);
        Self { files, folder, root }
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        // An error only leaves files in a temporary folder.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn write_pair(files: &config::TlsConfig) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate can be made");
    std::fs::write(&files.cert_file, made.cert.pem()).expect("the certificate can be written");
    std::fs::write(&files.key_file, made.signing_key.serialize_pem()).expect("the key can be written");
    made.cert.der().clone()
}

fn load(files: &config::TlsConfig) -> Tls {
    Tls::load(files.clone()).expect("the files are good")
}

async fn shake(
    served: &Served,
    root: &CertificateDer<'static>,
    alpn: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).expect("the certificate is well formed");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut settings = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows the protocols")
        .with_root_certificates(roots)
        .with_no_client_auth();
    settings.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let tcp = served.connect().await.0;
    let name = ServerName::try_from("localhost").expect("a host name");
    within(TlsConnector::from(Arc::new(settings)).connect(name, tcp)).await
}

#[tokio::test]
async fn a_peer_without_alpn_gets_http1() {
    let identity = Identity::new("http1");
    let served = start_with(wide(), Some(load(&identity.files))).await;
    let mut client = Client(shake(&served, &identity.root, &[]).await.expect("the handshake succeeds"));
    let answer = client.get("/peer").await;
    assert_eq!((answer.status(), answer.body.ends_with(" true")), ("200", true), "{answer:?}");
    client.send("nonsense\r\n\r\n").await;
    client.answer().await.assert_envelope("400", "invalid_request_error");
}

/// Opens an HTTP/2 connection. Returns its sender and the task that drives it.
async fn http2(
    served: &Served,
    identity: &Identity,
) -> (http2::SendRequest<Empty<Bytes>>, tokio::task::JoinHandle<hyper::Result<()>>) {
    let stream = shake(served, &identity.root, &[b"h2", b"http/1.1"]).await.expect("the handshake succeeds");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (ask, connection) =
        within(http2::handshake(TokioExecutor::new(), TokioIo::new(stream))).await.expect("HTTP/2 begins");
    (ask, tokio::spawn(connection))
}

fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("https://localhost{path}")).body(Empty::new()).expect("a plain request is valid")
}

#[tokio::test]
async fn a_peer_that_offers_http2_gets_it_and_a_panic_ends_only_its_stream() {
    let identity = Identity::new("http2");
    let served = start_with(wide(), Some(load(&identity.files))).await;
    let (mut ask, connection) = http2(&served, &identity).await;
    within(ask.send_request(get("/panic"))).await.expect_err("a panic answers nothing");
    let answer = within(ask.send_request(get("/"))).await.expect("the connection lives");
    let body = within(answer.into_body().collect()).await.expect("the body comes").to_bytes();
    assert_eq!(body, "hello");
    drop(connection);
}

#[tokio::test]
async fn an_invalid_http2_host_is_refused_and_ends_only_its_stream() {
    let identity = Identity::new("http2-host");
    let served = start_with(wide(), Some(load(&identity.files))).await;
    let (mut ask, _connection) = http2(&served, &identity).await;
    let cases: [(&str, &[&str], u16); 7] = [
        ("https://localhost/", &[], 200),
        ("https://localhost/", &["LOCALHOST:443"], 200),
        ("https://localhost/", &["another.example"], 400),
        ("https://localhost/", &["a b"], 400),
        ("https://localhost/", &["localhost", "localhost"], 400),
        ("https://user@localhost/", &[], 400),
        ("https://localhost/", &["localhost"], 200),
    ];
    for (target, hosts, status) in cases {
        let mut request = Request::get(target);
        for host in hosts {
            request = request.header("host", *host);
        }
        let request = request.body(Empty::new()).expect("a plain request is valid");
        let answer = within(ask.send_request(request)).await.expect("the connection lives");
        assert_eq!(answer.status().as_u16(), status, "{target} {hosts:?}");
    }
    assert_eq!(served.seen.faults(), [PeerFault::BadHead; 4]);
}

#[tokio::test]
async fn an_idle_http2_connection_is_closed_cleanly() {
    let identity = Identity::new("http2-idle");
    let limits = ServeLimits { idle_timeout: Duration::from_millis(150), ..wide() };
    let served = start_with(limits, Some(load(&identity.files))).await;
    let (mut ask, connection) = http2(&served, &identity).await;
    within(ask.send_request(get("/"))).await.expect("the connection lives");
    within(connection).await.expect("the client does not panic").expect("the server says goodbye");
    until(|| served.seen.closed.load(SeqCst) == 1).await;
}

#[tokio::test]
async fn a_long_http2_answer_is_not_cut_by_the_idle_timeout() {
    let identity = Identity::new("http2-long");
    let idle = Duration::from_millis(150);
    let served = start_with(ServeLimits { idle_timeout: idle, ..wide() }, Some(load(&identity.files))).await;
    let (mut ask, _connection) = http2(&served, &identity).await;
    let mut body = within(ask.send_request(get("/huge"))).await.expect("the connection lives").into_body();
    let (began, mut bytes) = (Instant::now(), 0);
    while let Some(frame) = within(body.frame()).await {
        bytes += frame.expect("the answer comes whole").into_data().map_or(0, |data| data.len());
        // A slow reader that takes several times the limit in total.
        if bytes * 8 / HUGE_BYTES > usize::try_from(began.elapsed().as_millis() / 100).expect("a short time") {
            tokio::time::sleep(Duration::from_millis(80)).await;
        }
    }
    assert_eq!(bytes, HUGE_BYTES);
    assert!(began.elapsed() > idle * 3, "too fast to tell: {:?}", began.elapsed());
}

#[tokio::test]
async fn an_http2_peer_with_a_full_window_is_cut_after_the_write_timeout() {
    let identity = Identity::new("http2-window");
    let limits =
        ServeLimits { write_timeout: Duration::from_millis(150), idle_timeout: Duration::from_millis(100), ..wide() };
    let served = start_with(limits, Some(load(&identity.files))).await;
    let stream = shake(&served, &identity.root, &[b"h2"]).await.expect("the handshake succeeds");
    let mut stingy = http2::Builder::new(TokioExecutor::new());
    stingy.initial_stream_window_size(0);
    let (mut ask, connection) = within(stingy.handshake(TokioIo::new(stream))).await.expect("HTTP/2 begins");
    let _connection = tokio::spawn(connection);
    let _unread = within(ask.send_request(get("/"))).await.expect("a head needs no room");
    until(|| served.seen.faults() == [PeerFault::WriteStalled]).await;
}

#[tokio::test]
async fn a_drain_lets_an_http2_call_finish() {
    let identity = Identity::new("http2-drain");
    let served = start_with(wide(), Some(load(&identity.files))).await;
    let (mut ask, _connection) = http2(&served, &identity).await;
    let call = tokio::spawn(ask.send_request(get("/wait")));
    until(|| served.seen.waiting.load(SeqCst) == 1).await;
    let running = served.running.clone();
    let drained = tokio::spawn(async move { running.drain(TIMEOUT).await });
    until(|| std::net::TcpStream::connect(served.running.local_addr()).is_err()).await;
    served.gate.add_permits(1);
    let answer = within(call).await.expect("the client does not panic").expect("the call finishes");
    assert_eq!(within(answer.into_body().collect()).await.expect("the body comes").to_bytes(), "waited");
    assert_eq!(within(drained).await.expect("the drain ends"), Drained { finished: 1, cut: 0 });
}

#[tokio::test]
async fn a_peer_without_a_tls_handshake_is_cut_after_the_header_timeout() {
    let identity = Identity::new("silent");
    let limits = ServeLimits { header_timeout: Duration::from_millis(150), ..wide() };
    let served = start_with(limits, Some(load(&identity.files))).await;
    served.connect().await.assert_closes().await;
    until(|| served.seen.faults() == [PeerFault::TlsHandshake]).await;
}

#[tokio::test]
async fn a_reload_serves_the_new_certificate_and_keeps_the_old_one_when_the_files_are_bad() {
    let identity = Identity::new("reload");
    let tls = load(&identity.files);
    let served = start_with(wide(), Some(tls.clone())).await;
    std::fs::write(&identity.files.key_file, "not a key").expect("the key can be written");
    let error = tls.reload().expect_err("the key is bad").to_string();
    assert!(error.contains("key.pem holds no usable PEM private key"), "{error}");
    shake(&served, &identity.root, &[]).await.expect("the old pair still serves");

    let renewed = write_pair(&identity.files);
    tls.reload().expect("the files are good");
    shake(&served, &renewed, &[]).await.expect("the new certificate is served");
    shake(&served, &identity.root, &[]).await.expect_err("the old certificate is gone");
}

#[test]
fn certificate_and_key_errors_name_the_file() {
    let (good, other) = (Identity::new("good"), Identity::new("other"));
    let missing = config::TlsConfig { cert_file: good.folder.join("none.pem"), ..good.files.clone() };
    let swapped = config::TlsConfig { cert_file: good.files.key_file.clone(), ..good.files.clone() };
    let mixed = config::TlsConfig { key_file: other.files.key_file.clone(), ..good.files.clone() };
    let error = |files| Tls::load(files).expect_err("these files are bad").to_string();
    assert!(error(missing).starts_with(&format!("cannot read {}", good.folder.join("none.pem").display())));
    let swapped = error(swapped);
    assert!(swapped.contains("key.pem holds no usable PEM certificate chain"), "{swapped}");
    let mixed = error(mixed);
    assert!(mixed.contains("cannot be used with the certificate in"), "{mixed}");
}

#[tokio::test]
async fn a_drain_does_not_wait_for_handshakes() {
    let identity = Identity::new("drained-handshake");
    let served = start_with(wide(), Some(load(&identity.files))).await;
    let mut silent = served.connect().await;
    until(|| served.running.connections() == 1).await;
    assert_eq!(within(served.running.drain(TIMEOUT / 2)).await, Drained { finished: 1, cut: 0 });
    silent.assert_closes().await;
}

#[tokio::test]
async fn a_tls_connection_over_the_limit_is_closed_without_plain_text() {
    let identity = Identity::new("over-the-bound");
    let served = start_with(ServeLimits { max_connections: 0, ..wide() }, Some(load(&identity.files))).await;
    served.connect().await.assert_closes().await;
    assert_eq!(served.seen.rejected.load(SeqCst), 1);
}
