//! What the log says of an instance when it begins: where it asks, who shares, and what it does in an outage.

use crate::config::{Config, FallbackMode, Origin, Scope, UpstreamTarget};
use crate::tiers::Stack;

/// Tells it, and warns of mocks that nobody has asked for: they are the default, and look like vectors.
pub(super) fn introduce(config: &Config, tiers: &Stack, limit_bytes: u64) {
    let upstream = &config.upstream.target;
    let scope = match config.cache.scope {
        Scope::Credential => "credential",
        Scope::Proxy => "proxy",
        Scope::Shared => "shared",
    };
    let below = tiers.lower().iter().map(|tier| tier.tier().name());
    let tiers: Vec<&str> = std::iter::once("memory").chain(below).collect();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        %upstream,
        scope,
        fallback = config.fallback.mode.name(),
        tiers = tiers.join(","),
        memory_limit_mb = limit_bytes >> 20,
        "answering"
    );
    let is_default = matches!(config.effective.origin("fallback.mode"), Some(Origin::Default));
    if is_default && config.fallback.mode == FallbackMode::Mock && *upstream != UpstreamTarget::Mock {
        tracing::warn!(
            "while the upstream is unavailable, answers will be mock vectors, marked as such: that is the default of \
             fallback.mode, which production sets to stale or error"
        );
    }
}
