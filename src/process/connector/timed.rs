//! The connector: settings, and connecting within a timeout.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::PROXY_AUTHORIZATION;
use http::{HeaderMap, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::time::{Instant, timeout_at};
use tower_service::Service;

use super::keepalive::{KEEPALIVE, KEEPALIVE_PROBES};
use super::proxy::ProxyRules;
use super::resolver::Resolver;
use super::route::{ProxyError, ProxyRouter, ProxyRouterParts, RouteStream, refused_credentials};
use super::tls::{TlsError, tls_config, with_identity};
use super::tracked::Tracked;
use crate::process::certificate::ReloadableCertificate;
use crate::process::errors::BoxError;

/// Settings for connections to one kind of server, with their configuration keys for error messages.
#[derive(Clone, Copy, Debug)]
pub struct Connecting<'a> {
    /// Timeout of name resolution, TCP connect, the exchange with a proxy and TLS handshake together.
    pub limit: Duration,
    /// Configuration key of the timeout.
    pub limit_key: &'static str,
    /// PEM file with trusted roots in addition to the public ones.
    pub ca_file: Option<&'a Path>,
    /// Configuration key of that file.
    pub ca_key: &'static str,
    /// Forward proxies.
    pub proxies: &'a ProxyRules,
    /// Client certificate.
    pub identity: Option<&'a Arc<ReloadableCertificate>>,
}

/// Connection before its use is tracked.
type Stream = MaybeHttpsStream<RouteStream>;

/// An open connection.
pub type OpenConnection = TokioIo<Tracked<TokioIo<Stream>>>;

/// Connector that establishes connections within a timeout.
#[derive(Clone)]
pub struct TimedConnector {
    router: ProxyRouter,
    /// TLS to the server.
    tls: Arc<ClientConfig>,
    limit: Duration,
}

impl TimedConnector {
    /// Creates a connector that trusts the public roots and those in the configured file.
    pub fn new(connecting: Connecting<'_>) -> Result<Self, TlsError> {
        Self::with_resolver(connecting, Resolver::default())
    }

    /// Creates a connector with another resolver.
    pub fn with_resolver(connecting: Connecting<'_>, resolver: Resolver) -> Result<Self, TlsError> {
        let Connecting { limit, limit_key, ca_file, ca_key, proxies, identity } = connecting;
        let mut tcp = HttpConnector::new_with_resolver(resolver);
        // A request is written at once, so Nagle's algorithm would only delay its end.
        tcp.set_nodelay(true);
        // The connector divides this time among the addresses of a name, so one dead address leaves time for the
        // others.
        tcp.set_connect_timeout(Some(limit));
        // The inner connector would otherwise refuse the scheme `https`, which the TLS layer around it serves.
        tcp.enforce_http(false);
        // TCP_USER_TIMEOUT is not set: it would also close the connection of a live peer that stops reading for that
        // long, as a busy server does.
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE));
        tcp.set_keepalive_retries(Some(KEEPALIVE_PROBES));
        let tls = Arc::new(tls_config(ca_file, ca_key)?);
        // A proxy gets no client certificate, which is meant for the server.
        let to_proxy = HttpsConnector::from((tcp.clone(), Arc::clone(&tls)));
        let tls = identity.map_or(tls.clone(), |identity| Arc::new(with_identity(&tls, identity)));
        let is_blocked = AtomicBool::new(false);
        let parts =
            Arc::new(ProxyRouterParts { direct: tcp, to_proxy, proxies: proxies.clone(), limit_key, is_blocked });
        let router = ProxyRouter { parts, tunnels_all: false };
        Ok(Self { router, tls, limit })
    }

    /// Returns a connector for requests that upgrade to a WebSocket, which a proxy passes only through a tunnel (RFC 6455,
    /// section 4.1).
    #[must_use]
    pub fn for_websockets(&self) -> Self {
        let mut connector = self.clone();
        connector.router.tunnels_all = true;
        connector
    }

    /// Returns a connector that offers HTTP/2 beside HTTP/1.1 in TLS handshakes.
    #[must_use]
    pub fn offering_http2(&self) -> Self {
        let mut tls = ClientConfig::clone(&self.tls);
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self { tls: Arc::new(tls), ..self.clone() }
    }

    /// Returns the timeout of a connection and its configuration key.
    pub fn limit(&self) -> (Duration, &'static str) {
        (self.limit, self.router.parts.limit_key)
    }

    /// Adds the credentials of the proxy to a request that the proxy gets itself, and not through a tunnel.
    pub fn authorize(&self, uri: &Uri, headers: &mut HeaderMap) {
        if let Some(credentials) = self.router.forwarding_proxy(uri).and_then(|proxy| proxy.credentials.clone()) {
            headers.insert(PROXY_AUTHORIZATION, credentials);
        }
    }

    /// Returns the error of the proxy that refused a request in absolute form, as far as the status shows that.
    pub fn proxy_refusal(&self, uri: &Uri, status: StatusCode) -> Option<ProxyError> {
        let proxy = self.router.forwarding_proxy(uri)?;
        // Only a proxy answers 407. Its other refusals look like those of the server.
        let is_refused = status == StatusCode::PROXY_AUTHENTICATION_REQUIRED;
        let error = is_refused.then(|| ProxyError::new(proxy, uri, refused_credentials(proxy, status)));
        self.router.note(proxy, error.as_ref());
        error
    }
}

impl Service<Uri> for TimedConnector {
    type Response = OpenConnection;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // The inner connectors are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (key, is_forwarded) = (self.router.parts.limit_key, self.router.forwarding_proxy(&uri).is_some());
        let (router, tls, limit) = (self.router.clone(), Arc::clone(&self.tls), self.limit);
        Box::pin(async move {
            let deadline = Instant::now() + limit;
            // The proxy has the same deadline, so a proxy that stalls is named in the error.
            let connecting = HttpsConnector::from((router.until(deadline), tls)).call(uri);
            // The outer timeout also covers name resolution and the TLS handshake.
            match timeout_at(deadline, connecting).await {
                Ok(connected) => Ok(TokioIo::new(Tracked::new(TokioIo::new(connected?), is_forwarded))),
                Err(_) => Err(format!("connecting took longer than {key}").into()),
            }
        })
    }
}
