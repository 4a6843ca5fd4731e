//! The places where embeddings calls are made.

use std::sync::Arc;

use crate::cache::{Leases, Stack};
use crate::config::{Live, TargetConfig, UpstreamTarget};
use crate::flow::StoredReferences;
use crate::observe::logs::Throttled;
use crate::observe::metrics::Metrics;
use crate::process::clock::Clock;
use crate::process::connector::TlsError;
use crate::spend::SpendGuard;
use crate::upstream::{Breaker, CallExecutor, Pacers, Router, TargetPlace, UpstreamClient};

/// Handles that calls need.
pub(super) struct CallHandles<'a> {
    pub(super) live: &'a Live,
    pub(super) clock: &'a Clock,
    pub(super) metrics: &'a Arc<Metrics>,
    pub(super) throttled: &'a Throttled,
    pub(super) tiers: &'a Arc<Stack>,
    pub(super) spend: &'a Arc<SpendGuard>,
    /// Leases between replicas.
    pub(super) leases: Option<Arc<dyn Leases>>,
}

/// Returns the router to the upstream, whose client exists already, or to the targets in its stead.
pub(super) fn router(client: &Arc<UpstreamClient>, handles: &CallHandles<'_>) -> Result<Router, TlsError> {
    let CallHandles { live, clock, metrics, throttled, tiers, spend, .. } = *handles;
    let reports = || (Arc::clone(metrics), throttled.clone(), Arc::clone(spend));
    let targets = live.load().targets.clone();
    if targets.is_empty() {
        let breaker = Arc::new(Breaker::new(Arc::clone(metrics)));
        let executor = CallExecutor::new(Arc::clone(client), breaker, live.clone(), reports());
        let executor = executor.paced(Pacers::of_upstream(&live.load().pace));
        let upstream = &live.load().upstream;
        return Ok(match (&upstream.identity, &upstream.target) {
            (Some(identity), UpstreamTarget::Http(url)) => Router::moved(executor, identity.clone(), url.clone()),
            _ => Router::single(executor),
        });
    }
    metrics.targets.begin(&targets.iter().map(|target| &*target.name).collect::<Vec<_>>());
    let place = |(index, target): (usize, TargetConfig)| {
        let client = Arc::new(UpstreamClient::for_target(live.clone(), index)?);
        let breaker = Arc::new(Breaker::of_target(Arc::clone(metrics), index));
        let executor = CallExecutor::new(client, breaker, live.clone(), reports()).named(&target.name);
        let executor = executor.paced(Pacers::of_target(&live.load().pace, &target));
        Ok(TargetPlace::new(index, target, executor))
    };
    let places = targets.into_iter().enumerate().map(place).collect::<Result<_, TlsError>>()?;
    let references =
        StoredReferences { tiers: Arc::clone(tiers), clock: clock.clone(), leases: handles.leases.clone() };
    Ok(Router::several(places, Some(Arc::new(references)), live.clone(), (Arc::clone(metrics), throttled.clone())))
}
