//! Certificates made by the test, a TLS front for a plain server, and a client that trusts one root.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::client::Answer;

/// A folder that is removed on drop.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(test: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the target folder is writable");
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file atomically, as an updated secret volume does, and returns its path.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let (draft, path) = (self.path("draft"), self.path(name));
        std::fs::write(&draft, content).expect("the folder is writable");
        std::fs::rename(&draft, &path).expect("a rename inside one folder must work");
        path.to_str().expect("the path is text").to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A self-signed certificate with its key.
pub(crate) struct Identity {
    pub(crate) cert_pem: String,
    pub(crate) key_pem: String,
    der: CertificateDer<'static>,
}

impl Identity {
    pub(crate) fn new(host: &str) -> Self {
        let made = rcgen::generate_simple_self_signed([host.to_owned()]).expect("a certificate can be made");
        let (cert_pem, key_pem) = (made.cert.pem(), made.signing_key.serialize_pem());
        Self { cert_pem, key_pem, der: made.cert.der().clone() }
    }

    fn acceptor(&self) -> TlsAcceptor {
        use rustls::pki_types::pem::PemObject as _;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).expect("the key is PEM");
        let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().expect("the provider knows the protocols");
        let config = builder.with_no_client_auth().with_single_cert(vec![self.der.clone()], key);
        TlsAcceptor::from(Arc::new(config.expect("key and certificate belong together")))
    }

    /// Returns an acceptor that chooses HTTP/2.
    pub(crate) fn http2_acceptor(&self) -> TlsAcceptor {
        let mut config = ServerConfig::clone(self.acceptor().config());
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    /// Returns an acceptor that requires one of these certificates of its clients.
    fn acceptor_for(&self, clients: &[&Self]) -> TlsAcceptor {
        use rustls::pki_types::pem::PemObject as _;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).expect("the key is PEM");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        for client in clients {
            roots.add(client.der.clone()).expect("the certificate is well formed");
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let verifier = verifier.build().expect("there are roots");
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().expect("the provider knows the protocols");
        let config = builder.with_client_cert_verifier(verifier).with_single_cert(vec![self.der.clone()], key);
        TlsAcceptor::from(Arc::new(config.expect("key and certificate belong together")))
    }
}

/// Terminates TLS on its own port and forwards all bytes to a plain server, until the test's runtime ends.
pub(crate) async fn front(identity: &Identity, behind: SocketAddr) -> SocketAddr {
    terminate(identity.acceptor(), behind).await
}

/// Like [`front`], for clients with one of these certificates.
pub(crate) async fn front_for(identity: &Identity, behind: SocketAddr, clients: &[&Identity]) -> SocketAddr {
    terminate(identity.acceptor_for(clients), behind).await
}

async fn terminate(acceptor: TlsAcceptor, behind: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port must bind");
    let addr = listener.local_addr().expect("a bound socket has an address");
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let (Ok(mut outside), Ok(mut inside)) = (acceptor.accept(tcp).await, TcpStream::connect(behind).await)
                else {
                    return;
                };
                let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
            });
        }
    });
    addr
}

/// Opens a TLS connection to `localhost` that offers these protocols and trusts only this certificate. Returns `None`
/// if the handshake fails.
pub(crate) async fn connect(addr: SocketAddr, trusted: &Identity, protocols: &[&str]) -> Option<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der.clone()).expect("the certificate is well formed");
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("the provider knows the protocols");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let tcp = TcpStream::connect(addr).await.expect("the port must accept");
    tcp.set_nodelay(true).expect("the socket is open");
    let name = ServerName::try_from("localhost").expect("a host name");
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await.ok()
}

/// Sends one request over TLS to `localhost`, trusting only this certificate. Returns `None` if the handshake fails.
pub(crate) async fn send(
    addr: SocketAddr,
    trusted: &Identity,
    mut request: http::Request<Full<bytes::Bytes>>,
) -> Option<Answer> {
    request.headers_mut().entry(http::header::HOST).or_insert(http::HeaderValue::from_static("localhost"));
    let tls = connect(addr, trusted, &[]).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await.expect("HTTP/1.1 is spoken");
    tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await.expect("an answer must come").into_parts();
    let body = body.collect().await.expect("the answer must arrive whole").to_bytes();
    Some(Answer { status: head.status.as_u16(), headers: head.headers, body })
}
