//! Wiring: the only place that knows every part. Starting, running, and stopping in order.
//!
//! Ports are bound before anything serves, so that a port in use is a failed start and not a half-running process.
//! Stopping goes the other way round: readiness first, the ops port last.

mod batches;
mod folder;
mod introduction;
mod mock_upstream;
mod moving;
mod ops;
mod parts;
mod reload;
mod tiers;
mod trust;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::admin::{self, AdminContext, Feed};
use crate::clock::Clock;
use crate::config::{Config, Live, Source};
use crate::connector::TlsError;
use crate::logs::LevelHandle;
use crate::metrics::{Metrics, Port};
use crate::proxy::Proxy;
use crate::serve::{self, Bound, Peer, Running, ServeLimits, Server, Tls};
use crate::tasks::Tasks;

pub use batches::{BatchCounts, BatchFiles, Keying, Sample, Tell};
pub use folder::{Folder, NoFolder};
use introduction::introduce;
pub use introduction::{payer, warnings};
use ops::Ops;
use parts::{Parts, PortHooks};
use reload::Reloader;
pub use trust::check_trust;

/// What a goodbye may take when the grace period is over.
const A_MOMENT: Duration = Duration::from_millis(100);

/// Why the process could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port cannot be had.
    #[error(transparent)]
    Bind(#[from] serve::BindError),
    /// The certificate of the public port cannot be used.
    #[error(transparent)]
    Tls(#[from] serve::TlsError),
    /// The trust set-up for the upstream or for the collector of traces cannot be made.
    #[error(transparent)]
    OutboundTls(#[from] TlsError),
}

impl StartError {
    /// Whether the configuration is to blame, rather than the machine.
    pub const fn is_configuration(&self) -> bool {
        !matches!(self, Self::Bind(_))
    }
}

/// What surrounds an [`App`]: the process gives the real things, a test its own.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The time of day.
    pub clock: Clock,
    /// The log level.
    pub level: LevelHandle,
    /// Where the configuration can be read again, if it can.
    pub source: Option<Source>,
}

impl Surroundings {
    /// For tests: nothing is re-read, logging is left alone, and the clock is the given one.
    pub fn detached(clock: Clock) -> Self {
        Self { clock, level: LevelHandle::detached(), source: None }
    }
}

/// A running vecho.
pub struct App {
    public: Running,
    admin: Running,
    state: Arc<State>,
    parts: Parts,
    tunnels: Tasks,
    background: Tasks,
    grace: Duration,
}

/// Where the process stands in its life. Readiness is a latch: once gone it does not return.
#[derive(Debug, Default)]
struct State {
    ready: AtomicBool,
    draining: AtomicBool,
}

/// What a stop had to cut because the grace period was over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stopped {
    /// Connections with a request under way.
    pub cut_connections: usize,
    /// Upstream fetches that had not landed.
    pub cut_fetches: usize,
    /// Upgraded connections that neither end had closed.
    pub cut_tunnels: usize,
    /// Entries that the tiers below memory had not written.
    pub unwritten: usize,
    /// Spans of traces that the collector had not taken.
    pub unsent_spans: usize,
}

impl App {
    /// Binds both ports, puts the parts together and serves.
    pub async fn start(config: Config, surroundings: Surroundings) -> Result<Self, StartError> {
        let metrics = Metrics::new(env!("CARGO_PKG_VERSION"));
        let public = Bound::bind(config.listen).await?;
        let admin = Bound::bind(config.admin_listen).await?;
        let tls = config.tls.clone().map(Tls::load).transpose()?;
        let live = Live::new(config);
        let config = live.load();
        metrics.accounts().reprice(&config.savings);
        let (tunnels, background) = (Tasks::new(), Tasks::new());
        let parts = Parts::assemble(&live, &metrics, &surroundings.clock, surroundings.level.throttled()).await?;
        let state = Arc::new(State::default());
        let (flow, answers, client) = (Arc::clone(&parts.flow), Arc::clone(&parts.answers), Arc::clone(&parts.client));
        let proxy = Proxy::new(flow, answers, client, parts.max_inflight_bytes, tunnels.clone());
        let ops = Arc::new(Ops::new(&parts, &proxy, &state, &surroundings));
        background.spawn_until_stop(Arc::clone(&parts.governor).run(config.memory.check_every));
        background.spawn_until_stop(reload::watch(Reloader::new(&parts, &surroundings, tls.clone())));
        background.spawn_until_stop(surroundings.level.throttled().clone().run());
        let limits = ServeLimits::from(&config.limits);
        let public = serve_public(public, limits.clone(), tls, proxy, &metrics);
        let context = AdminContext::from(&*ops);
        background.spawn_until_stop(Feed::run(context.clone()));
        let admin = serve_admin(admin, limits, context, &metrics);
        state.ready.store(true, Ordering::SeqCst);
        metrics.ready(true);
        introduce(&config, surroundings.source.as_ref(), &parts.flow.tiers, parts.governor.status().limit_bytes);
        tracing::info!("serving public={} admin={}", public.local_addr(), admin.local_addr());
        Ok(Self { public, admin, state, parts, tunnels, background, grace: config.shutdown.grace })
    }

    /// The address of the public port.
    pub fn public_addr(&self) -> SocketAddr {
        self.public.local_addr()
    }

    /// The address of the ops port.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin.local_addr()
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.parts.metrics
    }

    /// Stops in order, all of it within the grace period: readiness off, the public port closed, open requests
    /// finished, paid fetches landed, upgraded connections ended, traces delivered, the ops port closed.
    pub async fn stop(self) -> Stopped {
        let until = Instant::now() + self.grace;
        let left = || until.saturating_duration_since(Instant::now());
        self.state.draining.store(true, Ordering::SeqCst);
        self.parts.metrics.ready(false);
        tracing::info!(grace_ms = self.grace.as_millis(), "stopping: no new connections, open requests finish");
        // All three go on meanwhile and have the same end. The port comes first, since open requests still start the
        // others.
        let cut_connections = self.public.drain(left()).await.cut;
        let cut_fetches = self.parts.flow.tasks.join(left()).await;
        let unwritten = self.parts.close_lower(left()).await;
        let cut_tunnels = self.tunnels.join(left()).await;
        self.tunnels.stop();
        self.tunnels.join(A_MOMENT).await;
        // All spans have ended. They are few and go in one piece, so they get a moment even when the period is over.
        let unsent_spans = self.parts.flow.tracer.close(left().max(A_MOMENT)).await;
        let stopped = Stopped { cut_connections, cut_fetches, cut_tunnels, unwritten, unsent_spans };
        self.parts.flow.throttled.finish();
        stopped.tell();
        self.background.stop();
        // A probe or a scrape gets a moment even when the grace period is over.
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
            let message = "stopped: the grace period was over and this was cut";
            tracing::warn!(cut_connections, cut_fetches, cut_tunnels, unwritten, unsent_spans, "{message}");
        }
    }
}

fn serve_public(
    bound: Bound,
    limits: ServeLimits,
    tls: Option<Tls>,
    proxy: Arc<Proxy>,
    metrics: &Arc<Metrics>,
) -> Running {
    let hooks = Arc::new(PortHooks::new(Port::Public, Arc::clone(metrics)));
    let server = Server::new(bound, limits).with_tls(tls).with_hooks(hooks);
    server.start(move |request: Request<Incoming>, _peer: Peer| Arc::clone(&proxy).handle(request))
}

fn serve_admin(bound: Bound, limits: ServeLimits, context: AdminContext, metrics: &Arc<Metrics>) -> Running {
    let hooks = Arc::new(PortHooks::new(Port::Admin, Arc::clone(metrics)));
    let context = Arc::new(context);
    Server::new(bound, limits).with_hooks(hooks).start(move |request: Request<Incoming>, peer: Peer| {
        let context = Arc::clone(&context);
        async move { admin::handle(&context, request, peer.addr).await }
    })
}
