//! Handles for the ops port.

use std::sync::Arc;

use super::components::Components;
use super::surroundings::Surroundings;
use crate::admin::{AdminContext, Explainer, Feed, Finder, Guard};
use crate::process::lifecycle::Lifecycle;
use crate::proxy::Proxy;

/// Returns the handles of everything that the ops port shows or steers.
pub(super) fn admin_context(
    components: &Components,
    proxy: &Arc<Proxy>,
    lifecycle: &Arc<Lifecycle>,
    surroundings: &Surroundings,
) -> AdminContext {
    AdminContext {
        metrics: Arc::clone(&components.metrics),
        caches: components.caches.clone(),
        explainer: explainer(proxy),
        finder: finder(proxy),
        lifecycle: Arc::clone(lifecycle),
        batcher: Arc::clone(&components.flow.batcher),
        spend: Arc::clone(&components.flow.spend),
        governor: Arc::clone(&components.governor),
        system: Arc::clone(&components.system),
        live: components.live.clone(),
        level: surroundings.level.clone(),
        feed: Arc::new(Feed::default()),
        guard: Guard::new(components.live.load().admin.token.as_ref()),
        clock: surroundings.clock.clone(),
    }
}

fn explainer(proxy: &Arc<Proxy>) -> Explainer {
    let proxy = Arc::clone(proxy);
    Explainer::new(move |path, headers, body| {
        let proxy = Arc::clone(&proxy);
        async move { proxy.explain(&path, &headers, &body).await }
    })
}

fn finder(proxy: &Arc<Proxy>) -> Finder {
    let proxy = Arc::clone(proxy);
    Finder::new(move |path, headers, body| {
        let proxy = Arc::clone(&proxy);
        async move { proxy.forget_order(&path, &headers, &body).await }
    })
}
