//! TLS of outbound connections: trusted roots, and the certificate of the client.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::process::certificate::{CertificateError, ReloadableCertificate};
use crate::process::errors::BoxError;

/// Reason why TLS for connections cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file with additional roots cannot be read as PEM certificates.
    #[error("{key} {path}: {cause}", path = path.display())]
    CaFile {
        /// Configuration key of the file.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Description of the fault.
        cause: String,
    },
    /// The client certificate or its key cannot be used.
    #[error(transparent)]
    Identity(#[from] CertificateError),
    /// The TLS library rejects its own defaults.
    #[error("TLS cannot be set up: {0}")]
    Provider(#[from] rustls::Error),
}

/// Returns a configuration that trusts the public roots and those in `ca_file`. Blocks on the file.
pub(super) fn tls_config(ca_file: Option<&Path>, key: &'static str) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = ca_file {
        add_roots(&mut roots, path).map_err(|cause| TlsError::CaFile {
            key,
            path: path.to_owned(),
            cause: cause.to_string(),
        })?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// Returns the same configuration with a client certificate.
pub(super) fn with_identity(config: &ClientConfig, identity: &Arc<ReloadableCertificate>) -> ClientConfig {
    let mut config = config.clone();
    config.client_auth_cert_resolver = Arc::<ReloadableCertificate>::clone(identity) as Arc<dyn ResolvesClientCert>;
    // A resumed session keeps the certificate of its first handshake, so a replaced one would not be used.
    config.resumption = Resumption::disabled();
    config
}

/// Returns the reason why a file with roots cannot be used. Blocks on the file.
pub fn roots_fault(path: &Path) -> Option<String> {
    add_roots(&mut RootCertStore::empty(), path).err().map(|cause| format!("{}: {cause}", path.display()))
}

fn add_roots(roots: &mut RootCertStore, path: &Path) -> Result<(), BoxError> {
    let mut found = false;
    for certificate in CertificateDer::pem_file_iter(path)? {
        roots.add(certificate?)?;
        found = true;
    }
    // An empty file would silently leave only the public roots.
    if found { Ok(()) } else { Err("it holds no certificate".into()) }
}
