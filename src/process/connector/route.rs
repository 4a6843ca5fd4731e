//! The way to a server: directly, or through a forward proxy.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use http::{StatusCode, Uri};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tower_service::Service;

use super::proxy::{ForwardProxy, ProxyRules, is_https};
use super::resolver::Resolver;
use super::tunnel::{TunnelError, authority_of, open_tunnel};
use crate::process::errors::{BoxError, root_cause_of};

/// Connection to the server or to a proxy. With a proxy whose own address is `https`, it is encrypted up to the proxy.
pub(super) type RouteStream = MaybeHttpsStream<TokioIo<TcpStream>>;

/// A forward proxy did not let a connection through.
#[derive(Debug, thiserror::Error)]
#[error("the proxy {proxy} did not connect to {target}: {cause}")]
pub struct ProxyError {
    proxy: String,
    target: String,
    cause: String,
}

/// Opens connections up to the server, without the TLS to the server itself. Cheap to clone.
#[derive(Clone)]
pub(super) struct ProxyRouter {
    pub(super) parts: Arc<ProxyRouterParts>,
    /// True if `http` addresses are reached through a tunnel as well, which a WebSocket needs.
    pub(super) tunnels_all: bool,
}

/// Parts that all clones of a router share.
pub(super) struct ProxyRouterParts {
    pub(super) direct: HttpConnector<Resolver>,
    /// Connects to a proxy.
    pub(super) to_proxy: HttpsConnector<HttpConnector<Resolver>>,
    pub(super) proxies: ProxyRules,
    /// Configuration key of the timeout.
    pub(super) limit_key: &'static str,
    /// True while the proxy lets no connection through. Each change is logged once.
    pub(super) is_blocked: AtomicBool,
}

impl ProxyRouter {
    /// Returns the proxy that gets requests for an address in absolute form, without a tunnel.
    pub(super) fn forwarding_proxy(&self, uri: &Uri) -> Option<&Arc<ForwardProxy>> {
        if self.tunnels_all || is_https(uri) { None } else { self.parts.proxies.proxy_for(uri) }
    }

    /// Returns a service that connects until a deadline.
    pub(super) fn until(self, deadline: Instant) -> DeadlineRouter {
        DeadlineRouter { router: self, deadline }
    }

    /// Notes whether the proxy let a connection through, and logs a change.
    pub(super) fn note(&self, proxy: &ForwardProxy, error: Option<&ProxyError>) {
        let was_blocked = self.parts.is_blocked.swap(error.is_some(), Ordering::Relaxed);
        match error {
            Some(error) if !was_blocked => {
                tracing::warn!("{error}; calls fail until it does, see docs/RUNBOOK.md");
            }
            None if was_blocked => tracing::info!("the proxy {proxy} lets connections through again"),
            _ => {}
        }
    }

    async fn through(self, proxy: Arc<ForwardProxy>, target: Uri, deadline: Instant) -> Result<RouteStream, BoxError> {
        let forwards = self.forwarding_proxy(&target).is_some();
        let limit_key = self.parts.limit_key;
        let connecting = self.parts.to_proxy.clone().call(proxy.uri.clone());
        let opening = async {
            let stream =
                connecting.await.map_err(|error| format!("it cannot be reached: {}", root_cause_of(&*error)))?;
            if forwards {
                return Ok(stream);
            }
            let tunnel = open_tunnel(stream, &target, proxy.credentials.as_ref()).await;
            tunnel.map_err(|error| cause_of_refusal(&proxy, &error))
        };
        let late = || Err(format!("it took longer than {limit_key}"));
        let opened = timeout_at(deadline, opening).await.unwrap_or_else(|_| late());
        let opened = opened.map_err(|cause| ProxyError::new(&proxy, &target, cause));
        // A proxy that forwards requests judges each of them, so a connection shows nothing yet.
        if !forwards || opened.is_err() {
            self.note(&proxy, opened.as_ref().err());
        }
        Ok(opened?)
    }
}

impl ProxyError {
    pub(super) fn new(proxy: &ForwardProxy, target: &Uri, cause: impl Into<String>) -> Self {
        Self { proxy: proxy.to_string(), target: authority_of(target), cause: cause.into() }
    }
}

/// Describes a refusal, with the remedy if the proxy wants credentials.
fn cause_of_refusal(proxy: &ForwardProxy, error: &TunnelError) -> String {
    match error {
        // Some proxies answer 401 to credentials that they do not know.
        TunnelError::Refused(status @ (StatusCode::PROXY_AUTHENTICATION_REQUIRED | StatusCode::UNAUTHORIZED)) => {
            refused_credentials(proxy, *status)
        }
        other => other.to_string(),
    }
}

/// Describes a refusal for the lack of credentials.
pub(super) fn refused_credentials(proxy: &ForwardProxy, status: StatusCode) -> String {
    let remedy = if proxy.credentials.is_some() {
        "it does not accept the credentials in its URL"
    } else {
        "it wants credentials, which its URL can hold"
    };
    format!("it answers {status}: {remedy}")
}

/// A [`ProxyRouter`] with the deadline of one connection.
#[derive(Clone)]
pub(super) struct DeadlineRouter {
    router: ProxyRouter,
    deadline: Instant,
}

impl Service<Uri> for DeadlineRouter {
    type Response = RouteStream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<RouteStream, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // The inner connectors are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        if let Some(proxy) = self.router.parts.proxies.proxy_for(&uri) {
            return Box::pin(self.router.clone().through(Arc::clone(proxy), uri, self.deadline));
        }
        let connecting = self.router.parts.direct.clone().call(uri);
        Box::pin(async move { Ok(MaybeHttpsStream::Http(connecting.await?)) })
    }
}
