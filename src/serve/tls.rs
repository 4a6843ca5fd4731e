//! TLS on the public port: certificate and key from PEM files, reloaded on demand.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config;

const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// Reason why the certificate or the key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A file has the wrong contents.
    #[error("{} holds no usable {expected}: {fault}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Expected contents.
        expected: &'static str,
        /// Description of the fault.
        fault: String,
    },
    /// Certificate and key do not match, or the type of the key is not supported.
    #[error("the key in {} cannot be used with the certificate in {}: {source}", key.display(), cert.display())]
    Pair {
        /// File of the certificate.
        cert: PathBuf,
        /// File of the key.
        key: PathBuf,
        /// The error of the TLS library.
        source: rustls::Error,
    },
    /// The TLS library rejects the settings.
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}

/// Acceptor of TLS connections. Cheap to clone; a reload affects all clones.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    current: Arc<CurrentCertificate>,
    files: Arc<config::TlsConfig>,
    provider: Arc<CryptoProvider>,
}

impl Tls {
    /// Reads certificate and key. Blocks on the files.
    pub fn load(files: config::TlsConfig) -> Result<Self, CertificateError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        // The resolver stays the same for the life of the acceptor. A reload replaces only the pair in it.
        let current = Arc::new(CurrentCertificate(RwLock::new(Arc::new(read_pair(&files, &provider)?))));
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<CurrentCertificate>::clone(&current);
        let mut settings = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(CertificateError::Setup)?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        // HTTP/2 comes first: the server's order decides if the peer accepts both.
        settings.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(settings));
        Ok(Self { acceptor, current, files: Arc::new(files), provider })
    }

    /// Reads the files again. New handshakes use the new pair, or the old one if the files cannot be used. Blocks on
    /// the files.
    pub fn reload(&self) -> Result<(), CertificateError> {
        // Both files are read before the lock is taken, so a faulty pair changes nothing.
        let fresh = Arc::new(read_pair(&self.files, &self.provider)?);
        *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
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
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

/// Certificate and key for new handshakes. The lock is held only to copy a pointer.
#[derive(Debug)]
struct CurrentCertificate(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for CurrentCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // A poisoned lock still holds a complete pair, because a write only replaces the pointer.
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Returns the faults of the certificate file and of the key file. Blocks on the files.
pub fn pair_faults(files: &config::TlsConfig) -> [Option<CertificateError>; 2] {
    match (read_chain(&files.cert_file), read_key(&files.key_file)) {
        // The two can be compared only if each is readable by itself.
        (Ok(chain), Ok(key)) => [None, pair(files, chain, key, &aws_lc_rs::default_provider()).err()],
        (chain, key) => [chain.err(), key.err()],
    }
}

fn read_pair(files: &config::TlsConfig, provider: &CryptoProvider) -> Result<CertifiedKey, CertificateError> {
    pair(files, read_chain(&files.cert_file)?, read_key(&files.key_file)?, provider)
}

fn pair(
    files: &config::TlsConfig,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, CertificateError> {
    CertifiedKey::from_der(chain, key, provider).map_err(|source| CertificateError::Pair {
        cert: files.cert_file.clone(),
        key: files.key_file.clone(),
        source,
    })
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, CertificateError> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|fault| content(path, "PEM private key", &fault))
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<_, _>>()
        .map_err(|fault| content(path, "PEM certificate chain", &fault))?;
    // A PEM file without a certificate, such as the key by mistake, has no faulty item to report.
    if chain.is_empty() {
        return Err(content(path, "PEM certificate chain", &pem::Error::NoItemsFound));
    }
    Ok(chain)
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    std::fs::read(path).map_err(|source| CertificateError::Read { path: path.to_owned(), source })
}

fn content(path: &Path, expected: &'static str, fault: &pem::Error) -> CertificateError {
    CertificateError::Content { path: path.to_owned(), expected, fault: fault.to_string() }
}
