//! Log lines at start: the upstream, the scope, the fallback, and the key that pays.

use crate::cache::Stack;
use crate::config::{Config, ConfigSource, FallbackMode, Origin, UpstreamTarget};

/// Logs the set-up, the key that pays for upstream calls, and every warning.
pub(super) fn introduce(config: &Config, source: Option<&ConfigSource>, tiers: &Stack, limit_bytes: u64) {
    let upstream = &config.upstream.target;
    let below = tiers.lower().iter().map(|tier| tier.tier().label());
    let tiers: Vec<&str> = std::iter::once("memory").chain(below).collect();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        %upstream,
        scope = config.cache.scope.name(),
        fallback = config.fallback.mode.name(),
        tiers = tiers.join(","),
        memory_limit_mb = limit_bytes >> 20,
        "answering"
    );
    tracing::info!("{}", payer(config));
    for warning in warnings(config, source) {
        tracing::warn!("{warning}");
    }
}

/// Describes the key that pays for upstream calls and its origin.
pub fn payer(config: &Config) -> String {
    if config.upstream.target == UpstreamTarget::Mock {
        return "calls cost nothing: the built-in mock makes the vectors".to_owned();
    }
    match key_origin(config) {
        Some(origin) => format!("calls are paid by the key from {origin}"),
        None => "calls are paid by each caller's own key".to_owned(),
    }
}

/// Returns warnings about settings that are valid but may be unintended, in the configuration and its environment.
pub fn warnings(config: &Config, source: Option<&ConfigSource>) -> Vec<String> {
    [open_key(config), ignored_proxy(config, source), mocks_by_default(config)].into_iter().flatten().collect()
}

/// Returns the origin of the key that vecho holds, if it holds one.
fn key_origin(config: &Config) -> Option<String> {
    config.upstream.api_key.as_ref()?;
    let said = ["upstream.api_key", "upstream.api_key_file"].into_iter();
    let said = said.filter_map(|key| config.effective.origin(key)).find(|origin| **origin != Origin::Default);
    Some(said.map_or_else(|| "the configuration".to_owned(), Origin::to_string))
}

fn open_key(config: &Config) -> Option<String> {
    let origin = key_origin(config).filter(|_| config.upstream.target != UpstreamTarget::Mock)?;
    // `to_canonical` recognises IPv4-mapped loopback addresses such as `::ffff:127.0.0.1`.
    (!config.listen.ip().to_canonical().is_loopback()).then(|| {
        format!(
            "vecho holds a key ({origin}) and listens on {}, which is not loopback: anyone who can reach the port \
             spends that key",
            config.listen
        )
    })
}

/// Warns about a proxy variable that is not used. The warning omits its value, which may contain a password.
fn ignored_proxy(config: &Config, source: Option<&ConfigSource>) -> Option<String> {
    let variable = source?.ignored_proxy(&config.upstream.target)?;
    let UpstreamTarget::Http(uri) = &config.upstream.target else {
        return None;
    };
    Some(format!(
        "{variable} is set but not used for calls to the upstream: they go directly to {}; NO_PROXY with that host \
         silences this warning",
        uri.host().unwrap_or_default()
    ))
}

fn mocks_by_default(config: &Config) -> Option<String> {
    let is_default = matches!(config.effective.origin("fallback.mode"), Some(Origin::Default));
    let is_real = config.upstream.target != UpstreamTarget::Mock;
    (is_default && config.fallback.mode == FallbackMode::Mock && is_real).then(|| {
        "while the upstream is unavailable, answers will be mock vectors, marked as such: that is the default of \
         fallback.mode, which production sets to stale or error"
            .to_owned()
    })
}
