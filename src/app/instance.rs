//! A running vecho: it starts all parts, serves, and stops them in order.
//!
//! Both ports are bound before any part serves, so a port in use fails the start and leaves no half-running process.
//! The shutdown runs in reverse order: readiness first, the ops port last.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::components::Components;
use super::hooks::PortHooks;
use super::introduction::{PortAddresses, advise, introduce, warnings};
use super::machine::machine_warnings;
use super::ops::admin_context;
use super::reload::{self, Reloader};
use super::surroundings::Surroundings;
use crate::admin::{self, AdminContext};
use crate::config::{Config, Live};
use crate::flow::watch_models;
use crate::observe::metrics::{Metrics, Port};
use crate::process::certificate::CertificateError;
use crate::process::connector::TlsError;
use crate::process::lifecycle::Lifecycle;
use crate::process::random;
use crate::process::tasks::Tasks;
use crate::process::workers::Workers;
use crate::proxy::Proxy;
use crate::serve::{self, Bound, Peer, Running, ServeLimits, Server, Tls};

/// Extra time for final flushes after the grace period.
const A_MOMENT: Duration = Duration::from_millis(100);

/// Reason why the process could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port cannot be bound.
    #[error(transparent)]
    Bind(#[from] serve::BindError),
    /// The certificate of the public port cannot be used.
    #[error(transparent)]
    Tls(#[from] CertificateError),
    /// The TLS client set-up for the upstream or the trace collector is invalid.
    #[error(transparent)]
    OutboundTls(#[from] TlsError),
}

impl StartError {
    /// Returns true if the configuration is the cause and not the machine.
    pub const fn is_configuration(&self) -> bool {
        !matches!(self, Self::Bind(_))
    }
}

/// A running vecho.
pub struct App {
    public: Running,
    admin: Running,
    lifecycle: Arc<Lifecycle>,
    components: Components,
    tunnels: Tasks,
    background: Tasks,
    grace: Duration,
    /// Keeps the threads until the shutdown is over: fetches and tunnels outlive the connections.
    _workers: Option<Workers>,
}

/// Work that the shutdown aborted at the end of the grace period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stopped {
    /// Connections with a request in flight.
    pub cut_connections: usize,
    /// Upstream fetches that had not completed.
    pub cut_fetches: usize,
    /// Upgraded connections that were still open.
    pub cut_tunnels: usize,
    /// Entries that the lower tiers had not written.
    pub unwritten: usize,
    /// Trace spans that had not been sent to the collector.
    pub unsent_spans: usize,
}

impl App {
    /// Binds both ports, assembles the parts and serves.
    pub async fn start(config: Config, surroundings: Surroundings) -> Result<Self, StartError> {
        let metrics = Metrics::new(env!("CARGO_PKG_VERSION"));
        // A port in use or an unusable certificate ends the start before any part runs.
        let public = Bound::bind(config.listen).await?;
        let admin = Bound::bind(config.admin_listen).await?;
        let tls = config.tls.clone().map(Tls::load).transpose()?;
        let live = Live::new(config);
        let config = live.load();
        metrics.accounts().reprice(&config.savings);
        let (tunnels, background) = (Tasks::new(), Tasks::new());
        let throttled = surroundings.level.throttled();
        let components = Components::assemble(&live, &metrics, &surroundings.clock, throttled).await?;
        let lifecycle = Arc::new(Lifecycle::default());
        let proxy = components.proxy(&tunnels);
        // Background work ends at once by its stop signal, so it never delays a shutdown.
        background.spawn_until_stop(Arc::clone(&components.governor).run(config.memory.check_every));
        background.spawn_until_stop(reload::watch(Reloader::new(&components, &surroundings, tls.as_ref())));
        background.spawn_until_stop(watch_models(Arc::clone(&components.flow)));
        background.spawn_until_stop(surroundings.level.throttled().clone().run());
        background.spawn_until_stop(Arc::clone(&components.spend_keeper).run());
        if let Some(store) = components.shared_pace.clone() {
            background.spawn_until_stop(Arc::clone(&components.flow.batcher).share_pace(store));
        }
        let context = admin_context(&components, &proxy, &lifecycle, &surroundings);
        let limits = ServeLimits::from(&config.limits);
        let server = Server::new(public, limits.clone()).with_tls(tls).with_workers(surroundings.workers.clone());
        let public = serve_public(server, proxy, &metrics);
        background.spawn_until_stop(admin::run_updates(context.clone()));
        let admin = serve_admin(admin, limits, context, &metrics);
        // Readiness comes last: both ports already serve.
        lifecycle.start();
        metrics.status.ready(true);
        introduce(&config, &components.flow.tiers, components.governor.limit_bytes());
        let ports = PortAddresses { public: public.local_addr(), admin: admin.local_addr() };
        let of_machine = machine_warnings(&config, &components.system, &surroundings.clock).await;
        advise(&config, ports, warnings(&config).into_iter().chain(of_machine));
        // The first TLS handshake should not wait for it, nor should the start.
        drop(spawn_blocking(random::seed_tls));
        tracing::info!("serving public={} admin={}", public.local_addr(), admin.local_addr());
        Ok(Self {
            public,
            admin,
            lifecycle,
            components,
            tunnels,
            background,
            grace: config.shutdown.grace,
            _workers: surroundings.workers,
        })
    }

    /// Returns the address of the public port.
    pub fn public_addr(&self) -> SocketAddr {
        self.public.local_addr()
    }

    /// Returns the address of the ops port.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin.local_addr()
    }

    /// Returns the metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.components.metrics
    }

    /// Stops in order within the grace period: drops readiness, closes the public port, finishes open requests,
    /// completes paid fetches, flushes the lower tiers, closes upgraded connections, sends the traces, and closes the
    /// ops port.
    pub async fn stop(self) -> Stopped {
        let until = Instant::now() + self.grace;
        let left = || until.saturating_duration_since(Instant::now());
        self.lifecycle.begin_drain();
        self.components.metrics.status.ready(false);
        tracing::info!(grace_ms = self.grace.as_millis(), "stopping: no new connections, open requests finish");
        // Fetches, writes and tunnels continue in parallel and share one deadline. The port is drained first, since
        // open requests can still start more of them.
        let cut_connections = self.public.drain(left()).await.cut;
        let cut_fetches = self.components.flow.tasks.join(left()).await;
        // No call is under way any more, and Redis is still connected.
        self.components.spend_keeper.close().await;
        let unwritten = self.components.close_lower(left()).await;
        let cut_tunnels = self.tunnels.join(left()).await;
        // The remaining tunnels are closed; their tasks get a moment to end.
        self.tunnels.stop();
        self.tunnels.join(A_MOMENT).await;
        // All spans have ended. They are few and go in one batch, so they get extra time even after the grace period.
        let unsent_spans = self.components.flow.tracer.close(left().max(A_MOMENT)).await;
        let stopped = Stopped { cut_connections, cut_fetches, cut_tunnels, unwritten, unsent_spans };
        // The number of suppressed log lines is logged before the last line.
        self.components.flow.throttled.finish();
        stopped.tell();
        self.background.stop();
        // A probe or a scrape also gets extra time after the grace period.
        self.admin.drain(left().min(Duration::from_secs(1)).max(A_MOMENT)).await;
        stopped
    }
}

impl Stopped {
    fn tell(self) {
        if self == Self::default() {
            tracing::info!("stopped: nothing was cut");
        } else {
            let Self { cut_connections, cut_fetches, cut_tunnels, unwritten, unsent_spans } = self;
            let message = "stopped: work still open at the end of the grace period was cut";
            tracing::warn!(cut_connections, cut_fetches, cut_tunnels, unwritten, unsent_spans, "{message}");
        }
    }
}

fn serve_public(server: Server, proxy: Arc<Proxy>, metrics: &Arc<Metrics>) -> Running {
    let hooks = Arc::new(PortHooks::new(Port::Public, Arc::clone(metrics)));
    server
        .with_hooks(hooks)
        .start(move |request: Request<Incoming>, peer: Peer| Arc::clone(&proxy).handle(request, peer.is_near()))
}

fn serve_admin(bound: Bound, limits: ServeLimits, context: AdminContext, metrics: &Arc<Metrics>) -> Running {
    let hooks = Arc::new(PortHooks::new(Port::Admin, Arc::clone(metrics)));
    let context = Arc::new(context);
    Server::new(bound, limits).with_hooks(hooks).start(move |request: Request<Incoming>, peer: Peer| {
        let context = Arc::clone(&context);
        async move { admin::handle(&context, request, peer.addr).await }
    })
}
