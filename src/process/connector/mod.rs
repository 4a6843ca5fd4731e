//! HTTP client connections over TCP or TLS, with one deadline for name resolution, connect and handshake.

mod resolver;
mod tracked;

use std::error::Error;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tower_service::Service;

pub use resolver::Resolver;
pub use tracked::{ConnectionUse, Tracked};

/// TCP keepalive: the silence before the first probe, and the interval of probes. It is shorter than the idle timeouts
/// of common NAT gateways and load balancers, of which 30 s is the shortest.
pub const KEEPALIVE: Duration = Duration::from_secs(15);
/// Unanswered probes after which the operating system closes a connection.
pub const KEEPALIVE_PROBES: u32 = 3;

/// Any error of a connection.
type BoxError = Box<dyn Error + Send + Sync>;

/// Settings for connections to one kind of server, with their configuration keys for error messages.
#[derive(Clone, Copy, Debug)]
pub struct Connecting<'a> {
    /// Timeout of name resolution, TCP connect and TLS handshake together.
    pub limit: Duration,
    /// Configuration key of the timeout.
    pub limit_key: &'static str,
    /// PEM file with trusted roots in addition to the public ones.
    pub ca_file: Option<&'a Path>,
    /// Configuration key of that file.
    pub ca_key: &'static str,
}

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
    /// The TLS library rejects its own defaults.
    #[error("TLS cannot be set up: {0}")]
    Provider(#[from] rustls::Error),
}

/// Returns an error and its chain of causes in one line.
pub fn cause_of(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// Returns the last cause in the chain, which is the most specific one.
pub fn root_cause_of(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// Connection before its use is tracked.
type Stream = <HttpsConnector<HttpConnector<Resolver>> as Service<Uri>>::Response;

/// Connector that establishes connections within a timeout.
#[derive(Clone)]
pub struct TimedConnector {
    inner: HttpsConnector<HttpConnector<Resolver>>,
    limit: Duration,
    limit_key: &'static str,
}

impl TimedConnector {
    /// Creates a connector that trusts the public roots and those in the configured file.
    pub fn new(connecting: Connecting<'_>) -> Result<Self, TlsError> {
        Self::with_resolver(connecting, Resolver::default())
    }

    /// Creates a connector with another resolver.
    pub fn with_resolver(connecting: Connecting<'_>, resolver: Resolver) -> Result<Self, TlsError> {
        let Connecting { limit, limit_key, ca_file, ca_key } = connecting;
        let mut tcp = HttpConnector::new_with_resolver(resolver);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(limit));
        tcp.enforce_http(false);
        // TCP_USER_TIMEOUT is not set: it would also close the connection of a live peer that stops reading for that
        // long, as a busy server does.
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE));
        tcp.set_keepalive_retries(Some(KEEPALIVE_PROBES));
        let inner = HttpsConnectorBuilder::new()
            .with_tls_config(tls_config(ca_file, ca_key)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        Ok(Self { inner, limit, limit_key })
    }
}

fn tls_config(ca_file: Option<&Path>, key: &'static str) -> Result<ClientConfig, TlsError> {
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
    if found { Ok(()) } else { Err("it holds no certificate".into()) }
}

impl Service<Uri> for TimedConnector {
    type Response = TokioIo<Tracked<TokioIo<Stream>>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, limit, key) = (self.inner.call(uri), self.limit, self.limit_key);
        Box::pin(async move {
            match tokio::time::timeout(limit, connecting).await {
                Ok(connected) => Ok(TokioIo::new(Tracked::new(TokioIo::new(connected?)))),
                Err(_) => Err(format!("connecting took longer than {key}").into()),
            }
        })
    }
}
