//! TLS on the public port, with a certificate that is reloaded on demand.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::ResolvesServerCert;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config;
use crate::process::certificate::{CertificateError, ReloadableCertificate};

const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// Acceptor of TLS connections. Cheap to clone; a reload affects all clones.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    certificate: Arc<ReloadableCertificate>,
}

impl Tls {
    /// Reads certificate and key. Blocks on the files.
    pub fn load(files: config::TlsConfig) -> Result<Self, CertificateError> {
        // The resolver stays the same for the life of the acceptor. A reload replaces only the pair in it.
        let certificate = Arc::new(ReloadableCertificate::load(files.cert_file, files.key_file)?);
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<ReloadableCertificate>::clone(&certificate);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut settings = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(CertificateError::Setup)?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        // HTTP/2 comes first: the server's order decides if the peer accepts both.
        settings.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(settings)), certificate })
    }

    /// Reads the files again. New handshakes use the new pair, or the old one if the files cannot be used. Blocks on
    /// the files.
    pub fn reload(&self) -> Result<(), CertificateError> {
        // Both files are read before the pair is replaced, so a faulty pair changes nothing.
        self.certificate.replace(self.certificate.read()?);
        Ok(())
    }

    /// Returns the certificate.
    pub const fn certificate(&self) -> &Arc<ReloadableCertificate> {
        &self.certificate
    }

    /// Performs the handshake.
    pub(super) async fn accept(&self, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.acceptor.accept(tcp).await
    }
}

/// Returns true if the handshake negotiated HTTP/2. A peer without ALPN gets HTTP/1.1.
pub(super) fn chose_http2(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(HTTP2)
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("files", &self.certificate.files()).finish_non_exhaustive()
    }
}
