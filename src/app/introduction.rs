//! Log lines at start: the set-up, the key that pays, the addresses to use, and warnings.

use std::net::SocketAddr;

use super::advice::Advice;
use crate::cache::Stack;
use crate::config::{Config, FallbackMode, Origin, UpstreamTarget};
use crate::flow::TokenClaims;
use crate::process::connector::reachable;

/// Addresses of the ports as they are bound.
#[derive(Clone, Copy)]
pub(super) struct PortAddresses {
    pub(super) public: SocketAddr,
    pub(super) admin: SocketAddr,
}

/// Logs the set-up.
pub(super) fn introduce(config: &Config, tiers: &Stack, limit_bytes: u64) {
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
}

/// Logs the key that pays for upstream calls, the proxy of calls, the addresses to use, and every warning.
pub(super) fn advise(config: &Config, ports: PortAddresses, warnings: impl Iterator<Item = Advice>) {
    tracing::info!("{}", payer(config));
    if let Some(proxy) = proxy_of_calls(config) {
        tracing::info!("{proxy}");
    }
    if let Some(line) = budgets(config) {
        tracing::info!("{line}");
    }
    tracing::info!("{}", client_setting(config, ports.public));
    tracing::info!("{}", dashboard(config, ports.admin));
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}

/// Describes the variable that points an application at the public port.
fn client_setting(config: &Config, public: SocketAddr) -> String {
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let root = format!("{scheme}://{}", reachable(public));
    let setting = match &config.upstream.target {
        // Azure has no `/v1` at its root: its clients add `/openai` to the endpoint themselves.
        UpstreamTarget::Http(uri) if is_azure_root(uri) => {
            format!("applications set AZURE_OPENAI_ENDPOINT={root}, or OPENAI_BASE_URL={root}/openai/v1")
        }
        // The path of every other base stands for `/v1`.
        _ => format!("applications set OPENAI_BASE_URL={root}/v1"),
    };
    let note = match (public.ip().is_unspecified(), config.tls.is_some()) {
        (_, true) => ", with a name of the certificate as the host",
        (true, false) => ", and those of other machines the name of this one as the host",
        (false, false) => "",
    };
    setting + note
}

/// Returns true for a base URL of Azure OpenAI without a path.
pub fn is_azure_root(base: &http::Uri) -> bool {
    let host = base.host().unwrap_or_default().to_ascii_lowercase();
    host.ends_with(".azure.com") && base.path().trim_end_matches('/').is_empty()
}

fn dashboard(config: &Config, admin: SocketAddr) -> String {
    let token = if config.admin.token.is_some() { " (with the token of admin.token)" } else { "" };
    format!("the dashboard is http://{}/{token}", reachable(admin))
}

/// Describes the key that pays for upstream calls and its origin.
pub fn payer(config: &Config) -> String {
    if config.upstream.target == UpstreamTarget::Mock {
        return "calls cost nothing: the built-in mock makes the vectors".to_owned();
    }
    if !config.targets.is_empty() {
        let names: Vec<&str> = config.targets.iter().map(|target| &*target.name).collect();
        return format!("calls are paid by the keys of the targets {}", names.join(", "));
    }
    match key_origin(config) {
        Some(origin) => format!("calls are paid by the key from {origin}"),
        None => "calls are paid by each caller's own key".to_owned(),
    }
}

/// Returns warnings about settings that are valid but may be unintended.
pub fn warnings(config: &Config) -> Vec<Advice> {
    let warnings = [open_key(config), expiring_key(config), mocks_by_default(config), forgetful_budget(config)];
    warnings.into_iter().flatten().collect()
}

/// Names the forward proxy of upstream calls, without its credentials, if there is one.
pub fn proxy_of_calls(config: &Config) -> Option<String> {
    let UpstreamTarget::Http(uri) = &config.upstream.target else {
        return None;
    };
    let proxy = config.upstream.egress.proxies.proxy_for(uri)?;
    let login = if proxy.credentials.is_some() { ", with credentials" } else { "" };
    Some(format!("calls to the upstream go through the proxy {proxy}{login}"))
}

/// Describes the budgets, and the price of models that have none.
fn budgets(config: &Config) -> Option<String> {
    if config.budget.is_off() {
        return None;
    }
    let limits = config.budget.all().map(|(_, limits)| limits.count()).sum::<usize>();
    let word = if limits == 1 {
        "1 budget of a day limits calls".to_owned()
    } else {
        format!("{limits} budgets of a day limit calls")
    };
    let price = config.budget.dearest.filter(|_| config.budget.limits_money());
    let currency = &config.savings.currency;
    let unpriced = price.map_or_else(String::new, |price| {
        let price = price.to_per_million();
        format!("; a model without a price counts {price} {currency} per million tokens, the highest of savings.prices")
    });
    Some(format!("{word}{unpriced}"))
}

/// Returns the origin of the key that vecho holds, if it holds one.
fn key_origin(config: &Config) -> Option<String> {
    config.upstream.api_key.as_ref()?;
    let said = ["upstream.api_key", "upstream.api_key_file"].into_iter();
    let said = said.filter_map(|key| config.effective.origin(key)).find(|origin| **origin != Origin::Default);
    Some(said.map_or_else(|| "the configuration".to_owned(), Origin::to_string))
}

fn open_key(config: &Config) -> Option<Advice> {
    let origin = key_origin(config).filter(|_| config.upstream.target != UpstreamTarget::Mock)?;
    let listen = config.listen;
    // `to_canonical` recognises IPv4-mapped loopback addresses such as `::ffff:127.0.0.1`.
    (!listen.ip().to_canonical().is_loopback()).then(|| {
        let message = format!(
            "vecho holds a key ({origin}) and listens on {listen}, which is not loopback: anyone who can reach the port \
             spends that key"
        );
        let port = listen.port();
        Advice::new("key", message, format!("listen on 127.0.0.1:{port}, or let only your applications reach the port"))
    })
}

/// Warns about a key that is a token of an issuer: vecho does not renew it.
fn expiring_key(config: &Config) -> Option<Advice> {
    let origin = key_origin(config)?;
    TokenClaims::read(config.upstream.api_key.as_ref()?.reveal())?;
    let message = format!("the key that vecho holds ({origin}) is a token that expires, and vecho does not renew it");
    let remedy = "let applications send their own tokens: remove it, and set auth.identity to token";
    Some(Advice::new("key", message, remedy))
}

fn mocks_by_default(config: &Config) -> Option<Advice> {
    let is_default = matches!(config.effective.origin("fallback.mode"), Some(Origin::Default));
    let is_real = config.upstream.target != UpstreamTarget::Mock;
    (is_default && config.fallback.mode == FallbackMode::Mock && is_real).then(|| {
        let message = "while the upstream is unavailable, answers will be mock vectors, marked as such: that is the \
                       default of fallback.mode";
        Advice::new("fallback", message, "set it to stale or error in production")
    })
}

/// Warns about a budget whose counts are in memory only.
fn forgetful_budget(config: &Config) -> Option<Advice> {
    let is_kept = (config.disk.enabled && config.disk.path.is_some()) || !config.redis.nodes.is_empty();
    (!config.budget.is_off() && !is_kept).then(|| {
        let message = "there is a budget, and neither a disk tier nor Redis: a restart forgets what was spent today";
        Advice::new("budget", message, "set disk.path or redis.url")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(upstream: &str, listen: &str) -> String {
        let config = Config::from_pairs(&[("upstream.url", upstream)]).expect("it is valid");
        client_setting(&config, listen.parse().expect("an address"))
    }

    #[test]
    fn the_setting_of_applications_fits_the_upstream_and_the_port() {
        for base in ["https://api.openai.com/v1", "http://host:8080", "https://host/api/v1", "mock:"] {
            assert_eq!(setting(base, "127.0.0.1:7861"), "applications set OPENAI_BASE_URL=http://127.0.0.1:7861/v1");
        }
        let azure = "applications set AZURE_OPENAI_ENDPOINT=http://127.0.0.1:1, or \
                     OPENAI_BASE_URL=http://127.0.0.1:1/openai/v1";
        assert_eq!(setting("https://name.openai.azure.com/", "127.0.0.1:1"), azure);
        let versioned = setting("https://name.openai.azure.com/openai/v1/", "127.0.0.1:1");
        assert_eq!(versioned, "applications set OPENAI_BASE_URL=http://127.0.0.1:1/v1");
        let open = setting("mock:", "[::]:1");
        assert!(open.contains("http://[::1]:1/v1, and those of other machines"), "{open}");
    }
}
