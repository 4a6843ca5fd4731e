//! Certificates with their keys, from PEM files that can be read again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Reason why a certificate or its key cannot be used.
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

/// Certificate and key for new handshakes, of a server or a client. They can be replaced while handshakes use them.
#[derive(Debug)]
pub struct ReloadableCertificate {
    cert_file: PathBuf,
    key_file: PathBuf,
    /// Locked only to copy or replace the pointer.
    current: RwLock<Arc<CertifiedKey>>,
}

impl ReloadableCertificate {
    /// Reads certificate and key. Blocks on the files.
    pub fn load(cert_file: PathBuf, key_file: PathBuf) -> Result<Self, CertificateError> {
        let current = RwLock::new(read_pair(&cert_file, &key_file)?);
        Ok(Self { cert_file, key_file, current })
    }

    /// Reads the files again without using them. Blocks on the files.
    pub fn read(&self) -> Result<Arc<CertifiedKey>, CertificateError> {
        read_pair(&self.cert_file, &self.key_file)
    }

    /// Uses a pair for new handshakes.
    pub fn replace(&self, fresh: Arc<CertifiedKey>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
    }

    /// Returns the files of certificate and key.
    pub fn files(&self) -> [&Path; 2] {
        [&self.cert_file, &self.key_file]
    }

    fn current(&self) -> Arc<CertifiedKey> {
        // A poisoned lock still holds a complete pair, because a write only replaces the pointer.
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ResolvesServerCert for ReloadableCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl ResolvesClientCert for ReloadableCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        // A server that asks for a certificate of another root refuses this one, which names the reason.
        Some(self.current())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Returns the faults of the certificate file and of the key file. Blocks on the files.
pub fn pair_faults(cert_file: &Path, key_file: &Path) -> [Option<CertificateError>; 2] {
    match (read_chain(cert_file), read_key(key_file)) {
        // The two can be compared only if each is readable by itself.
        (Ok(chain), Ok(key)) => [None, pair((cert_file, key_file), chain, key).err()],
        (chain, key) => [chain.err(), key.err()],
    }
}

fn read_pair(cert_file: &Path, key_file: &Path) -> Result<Arc<CertifiedKey>, CertificateError> {
    pair((cert_file, key_file), read_chain(cert_file)?, read_key(key_file)?)
}

fn pair(
    (cert_file, key_file): (&Path, &Path),
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<CertifiedKey>, CertificateError> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain, key, &provider).map(Arc::new).map_err(|source| CertificateError::Pair {
        cert: cert_file.to_owned(),
        key: key_file.to_owned(),
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
