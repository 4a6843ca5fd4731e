//! Connections to other servers over HTTP: TCP or TLS, with one deadline over name resolution, connect and handshake.

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

/// TCP keepalive: probes start after this much silence and are sent this far apart. Shorter than the idle limits of
/// common NAT gateways and load balancers, of which 30 s is the shortest.
pub const KEEPALIVE: Duration = Duration::from_secs(15);
/// Unanswered probes after which the operating system ends a connection.
pub const KEEPALIVE_PROBES: u32 = 3;

/// Any error of a connection.
type BoxError = Box<dyn Error + Send + Sync>;

/// How connections to one kind of server are made, and the keys of the configuration that say so.
#[derive(Clone, Copy, Debug)]
pub struct Connecting<'a> {
    /// Limit of name lookup, TCP and TLS together.
    pub limit: Duration,
    /// The key of that limit.
    pub limit_key: &'static str,
    /// PEM file with roots to trust besides the public ones.
    pub ca_file: Option<&'a Path>,
    /// The key of that file.
    pub ca_key: &'static str,
}

/// Why the TLS set-up for connections cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file with further roots cannot be read as PEM certificates.
    #[error("{key} {path}: {cause}", path = path.display())]
    CaFile {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The TLS library refuses its own defaults.
    #[error("TLS cannot be set up: {0}")]
    Provider(#[from] rustls::Error),
}

/// The chain of causes in one line.
pub fn cause_of(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// The last cause in the chain, which is the most specific one.
pub fn root_cause_of(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// A connection before its use is tracked.
type Stream = <HttpsConnector<HttpConnector<Resolver>> as Service<Uri>>::Response;

/// A connector whose connections are up within a time limit or fail.
#[derive(Clone)]
pub struct TimedConnector {
    inner: HttpsConnector<HttpConnector<Resolver>>,
    limit: Duration,
    limit_key: &'static str,
}

impl TimedConnector {
    /// A connector that trusts the public roots and those in its file.
    pub fn new(connecting: Connecting<'_>) -> Result<Self, TlsError> {
        Self::with_resolver(connecting, Resolver::default())
    }

    /// The same with another way to look up names.
    pub fn with_resolver(connecting: Connecting<'_>, resolver: Resolver) -> Result<Self, TlsError> {
        let Connecting { limit, limit_key, ca_file, ca_key } = connecting;
        let mut tcp = HttpConnector::new_with_resolver(resolver);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(limit));
        tcp.enforce_http(false);
        // TCP_USER_TIMEOUT is not set: it also ends the connection of a live peer that stops reading for that long, as a
        // busy server does.
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

/// Why a file with roots cannot be used. Blocks on the file.
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
