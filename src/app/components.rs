//! Assembles everything below the ports.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::join_all;

use super::hooks::MemoryHooks;
use super::mock_upstream::MockUpstream;
use super::places::{CallHandles, router};
use super::tiers::{self, TierHandles};
use crate::cache::at_rest::ChecksumKeys;
use crate::cache::bounded::MapBounds;
use crate::cache::redis::RedisTier;
use crate::cache::reply_cache::ReplyCache;
use crate::cache::{Caches, MemoryTier, Stack, Tier};
use crate::config::{Config, Live, UpstreamTarget};
use crate::flow::{FetchLeases, Flow, Rotation, SingleFlight, Tokenizer, VectorBudget, Watch};
use crate::learned::AcceptedCredentials;
use crate::learned::Spaces;
use crate::observe::logs::Throttled;
use crate::observe::metrics::{BudgetFigures, Metrics, ShownLimit};
use crate::observe::traces::Tracer;
use crate::process::clock::Clock;
use crate::process::connector::TlsError;
use crate::process::governor::{Governor, Meter, effective_limit};
use crate::process::shared_fields::SharedFields;
use crate::process::system::System;
use crate::process::tasks::Tasks;
use crate::proxy::Proxy;
use crate::spend::{BudgetReport, SpendGuard, SpendKeeper};
use crate::upstream::{Batcher, LimitFigures, UpstreamClient};

/// Divisor of the memory limit for three budgets of equal size: requests in flight, responses of their calls, and their
/// vectors.
const REQUESTS_SHARE: u64 = 5;

/// Everything below the ports.
pub(super) struct Components {
    pub(super) flow: Arc<Flow>,
    pub(super) reply_cache: Arc<ReplyCache>,
    pub(super) caches: Caches,
    pub(super) client: Arc<UpstreamClient>,
    pub(super) spend_keeper: Arc<SpendKeeper>,
    /// Store by which replicas share the rate limits, if they do.
    pub(super) shared_pace: Option<Arc<dyn SharedFields>>,
    pub(super) governor: Arc<Governor>,
    pub(super) system: Arc<System>,
    /// Maximum bytes of requests in flight: as configured, but at most a fifth of the limit if the container's limit is
    /// below `memory.limit_mb`.
    pub(super) max_inflight_bytes: usize,
    pub(super) metrics: Arc<Metrics>,
    pub(super) live: Live,
}

impl Components {
    pub(super) async fn assemble(
        live: &Live,
        metrics: &Arc<Metrics>,
        clock: &Clock,
        throttled: &Throttled,
    ) -> Result<Self, TlsError> {
        let config = live.load();
        let system = Arc::new(System::new());
        let limit_bytes = effective_limit(config.memory.limit_bytes, system.container_limit_bytes());
        let tokenizer = Arc::new(Tokenizer::default());
        let share_bytes = limit_bytes / REQUESTS_SHARE;
        let client = Arc::new(client(live, clock, &tokenizer, share_bytes)?);
        let spend = SpendGuard::new(live.clone(), clock.clone(), (Arc::clone(metrics), throttled.clone()));
        let purges = Arc::default();
        let handles = TierHandles { live, clock, metrics, purges: &purges, limit_bytes };
        let redis = tiers::redis(&handles);
        let flow = flow(&handles, redis.as_ref(), &client, (&spend, throttled, tokenizer)).await?;
        let reply_cache = Arc::new(ReplyCache::new(reply_cache_bounds(&config, limit_bytes)));
        let shared_pace = redis.clone().filter(|_| config.pace.shared).map(|redis| redis as Arc<dyn SharedFields>);
        let spend_keeper = tiers::spend_keeper(live, &spend, redis.as_ref());
        // What an earlier process has spent today must be known before the first call.
        spend_keeper.begin().await;
        // Redis begins last, because purges of other replicas act on the flow and on the reply cache.
        if let Some(redis) = redis {
            redis.begin(Box::new(tiers::OthersPurges::of(&flow, &reply_cache)));
        }
        let caches = Caches::new(Arc::clone(&flow.tiers), Arc::clone(&reply_cache));
        let governor = Governor::new(Arc::clone(&system) as Arc<dyn Meter>, limit_bytes, caches.shrinkable())
            .with_clock(clock.clone())
            .with_hooks(Arc::new(MemoryHooks(Arc::clone(metrics))));
        metrics.memory.limit.set(limit_bytes);
        show_sizes(metrics, &flow, &reply_cache);
        show_budgets(metrics, &spend);
        show_pace(metrics, &flow);
        let (metrics, live, governor) = (Arc::clone(metrics), live.clone(), Arc::new(governor));
        // The governor needs the caches, which need the flow, so the flow gets it afterwards.
        flow.tokenizer.set_governor(&governor);
        flow.vector_budget.set_governor(&governor);
        let max_inflight_bytes = max_inflight_bytes(&config, limit_bytes);
        Ok(Self {
            flow,
            reply_cache,
            caches,
            client,
            spend_keeper,
            shared_pace,
            governor,
            system,
            max_inflight_bytes,
            metrics,
            live,
        })
    }
}

/// Creates the flow over its tiers.
async fn flow(
    handles: &TierHandles<'_>,
    redis: Option<&Arc<RedisTier>>,
    client: &Arc<UpstreamClient>,
    (spend, throttled, tokenizer): (&Arc<SpendGuard>, &Throttled, Arc<Tokenizer>),
) -> Result<Arc<Flow>, TlsError> {
    let TierHandles { live, clock, metrics, purges, limit_bytes } = *handles;
    let config = live.load();
    let lower = tiers::lower(handles, redis).await;
    let checksum_keys = ChecksumKeys::new(config.cache.key_secret.as_ref());
    let memory = MemoryTier::new(memory_bounds(&config, limit_bytes));
    let tiers = Arc::new(Stack::new(memory, lower, Arc::clone(purges), checksum_keys));
    let shared = tiers::lease_store(live, redis);
    let router =
        router(client, &CallHandles { live, clock, metrics, throttled, tiers: &tiers, spend, leases: shared.clone() })?;
    Ok(Arc::new(Flow {
        live: live.clone(),
        clock: clock.clone(),
        tiers,
        leases: shared.map(FetchLeases::new),
        vector_budget: VectorBudget::new(limit_bytes / REQUESTS_SHARE),
        single_flight: SingleFlight::new(),
        // The batcher has its own tasks, so the count of unfinished fetches does not include their calls.
        batcher: Batcher::new(router, live.clone(), limit_bytes / REQUESTS_SHARE, Arc::clone(metrics)),
        spaces: Spaces::default(),
        accepted_credentials: AcceptedCredentials::default(),
        proofs: SingleFlight::new(),
        rotation: Rotation::default(),
        watch: Watch::default(),
        spend: Arc::clone(spend),
        throttled: throttled.clone(),
        tokenizer,
        tasks: Tasks::new(),
        tracer: Tracer::start(live, env!("CARGO_PKG_VERSION"), metrics)?,
        metrics: Arc::clone(metrics),
    }))
}

impl Components {
    /// Creates the public port. `tunnels` run its upgraded connections.
    pub(super) fn proxy(&self, tunnels: &Tasks) -> Arc<Proxy> {
        let (flow, replies, client) = (Arc::clone(&self.flow), Arc::clone(&self.reply_cache), Arc::clone(&self.client));
        Proxy::new(flow, replies, client, self.max_inflight_bytes, tunnels.clone())
    }

    /// Lets the lower tiers write their queues within `timeout`. Returns the number of entries left.
    pub(super) async fn close_lower(&self, timeout: Duration) -> usize {
        let lower = self.flow.tiers.lower();
        join_all(lower.iter().map(|tier| tier.close(timeout))).await.into_iter().sum()
    }
}

/// Creates the client for the upstream. The built-in mock builds whole responses, so its limit is smaller.
fn client(
    live: &Live,
    clock: &Clock,
    tokenizer: &Arc<Tokenizer>,
    share_bytes: u64,
) -> Result<UpstreamClient, TlsError> {
    if let UpstreamTarget::Http(_) = live.load().upstream.target {
        return UpstreamClient::http(live.clone());
    }
    let (live, clock, tokenizer) = (live.clone(), clock.clone(), Arc::clone(tokenizer));
    let mock = MockUpstream { live: live.clone(), clock, tokenizer, max_vector_bytes: share_bytes / 4 };
    Ok(UpstreamClient::in_process(mock.embedder(), live))
}

fn max_inflight_bytes(config: &Config, limit_bytes: u64) -> usize {
    let configured = config.limits.max_inflight_bytes;
    let is_smaller_container = limit_bytes < config.memory.limit_bytes;
    let share = usize::try_from(limit_bytes / REQUESTS_SHARE).unwrap_or(usize::MAX);
    if is_smaller_container { configured.min(share) } else { configured }
}

fn memory_bounds(config: &Config, limit_bytes: u64) -> MapBounds {
    MapBounds { max_bytes: limit_bytes / 100 * config.cache.memory_percent, max_entries: config.cache.max_entries }
}

fn reply_cache_bounds(config: &Config, limit_bytes: u64) -> MapBounds {
    MapBounds { max_bytes: limit_bytes / 100 * config.cache.answers_percent, max_entries: None }
}

/// Reads sizes at each scrape. The hook holds weak references, so it does not keep the parts alive.
fn show_sizes(metrics: &Metrics, flow: &Arc<Flow>, replies: &Arc<ReplyCache>) {
    let (flow, replies): (Weak<Flow>, Weak<ReplyCache>) = (Arc::downgrade(flow), Arc::downgrade(replies));
    metrics.on_scrape(Box::new(move |metrics| {
        if let (Some(flow), Some(replies)) = (flow.upgrade(), replies.upgrade()) {
            for (tier, stats) in Caches::new(Arc::clone(&flow.tiers), replies).stats() {
                if tier == Tier::Answers {
                    metrics.cache.answers_served(stats.hits);
                }
                metrics.tiers.set(tier, &stats);
            }
            metrics.cache.flights.set(flow.single_flight.len() as u64);
            metrics.requests.vector_bytes_in_flight.set(flow.vector_budget.held_bytes() as u64);
        }
    }));
}

/// Reads the budgets at each scrape.
fn show_budgets(metrics: &Metrics, spend: &Arc<SpendGuard>) {
    let spend = Arc::downgrade(spend);
    metrics.on_scrape(Box::new(move |metrics| {
        let report = spend.upgrade().and_then(|spend| spend.report());
        let figures = |budget: &BudgetReport| BudgetFigures {
            key: budget.unit.key(!budget.namespace.is_empty()),
            namespace: budget.namespace.clone(),
            limit: budget.unit.figure(budget.limit),
            spent: budget.unit.figure(budget.spent),
        };
        let budgets: Vec<BudgetFigures> = report.iter().flat_map(|report| &report.budgets).map(figures).collect();
        metrics.budget.show(&budgets);
    }));
}

/// Reads the rate limits at each scrape.
fn show_pace(metrics: &Metrics, flow: &Arc<Flow>) {
    let flow = Arc::downgrade(flow);
    metrics.on_scrape(Box::new(move |metrics| {
        let reports = flow.upgrade().map(|flow| flow.batcher.router().pace_reports()).unwrap_or_default();
        let pair = |limit: LimitFigures| (limit.per_minute, limit.left);
        let found = |per_minute: f64| (per_minute, per_minute);
        let shown: Vec<ShownLimit<'_>> = reports
            .iter()
            .map(|report| ShownLimit {
                target: report.target.as_deref().unwrap_or_default(),
                model: &report.model,
                requests: report.figures.requests.map(pair).or(report.figures.found_per_minute.map(found)),
                tokens: report.figures.tokens.map(pair),
                held: report.figures.held,
            })
            .collect();
        metrics.pace.show(&shown);
    }));
}
