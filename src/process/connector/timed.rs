//! The connector: settings, and connecting within a timeout.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tower_service::Service;

use super::keepalive::{KEEPALIVE, KEEPALIVE_PROBES};
use super::resolver::Resolver;
use super::tls::{TlsError, tls_config};
use super::tracked::Tracked;
use crate::process::errors::BoxError;

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
        let inner = HttpsConnectorBuilder::new()
            .with_tls_config(tls_config(ca_file, ca_key)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        Ok(Self { inner, limit, limit_key })
    }
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
            // The outer timeout also covers name resolution and the TLS handshake.
            match tokio::time::timeout(limit, connecting).await {
                Ok(connected) => Ok(TokioIo::new(Tracked::new(TokioIo::new(connected?)))),
                Err(_) => Err(format!("connecting took longer than {key}").into()),
            }
        })
    }
}
