//! The running configuration, and its replacement without a restart.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::effective::{DisplayValue, Effective, Setting};
use super::{AuthConfig, CacheConfig, Config, LimitsConfig, LogConfig, TargetConfig, TracesConfig, UpstreamConfig};

/// The configuration in force. Cheap to clone; all clones share it.
#[derive(Clone, Debug)]
pub struct Live(Arc<ArcSwap<Config>>);

impl Live {
    /// Creates a handle with this configuration.
    pub fn new(config: Config) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(config)))
    }

    /// Returns the configuration in force. A request loads it once and keeps it, so it sees only one configuration.
    pub fn load(&self) -> Arc<Config> {
        self.0.load_full()
    }

    /// Replaces the configuration unconditionally.
    pub fn store(&self, config: Config) {
        self.0.store(Arc::new(config));
    }

    /// Applies a new configuration. Keys that need a restart keep their current value.
    pub fn apply(&self, read: Config) -> Changes {
        let running = self.load();
        let changes = changes(&running, &read);
        if !changes.needs_restart.is_empty() {
            tracing::warn!(keys = changes.needs_restart.join(", "), "these changes take effect at the next start");
        }
        // Requests in flight keep the configuration that they have loaded.
        self.store(carry(&running, read));
        changes
    }
}

/// Keys that differ between two configurations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Keys whose change takes effect immediately.
    pub live: Vec<&'static str>,
    /// Keys whose change takes effect at the next start.
    pub needs_restart: Vec<&'static str>,
}

/// Returns the keys that differ between two configurations.
pub fn changes(old: &Config, new: &Config) -> Changes {
    let mut changes = Changes::default();
    for (old, new) in pairs(old, new).filter(|(old, new)| old.shown != new.shown) {
        let list = if takes_effect(old, new) { &mut changes.live } else { &mut changes.needs_restart };
        list.push(new.key.name);
    }
    changes
}

fn pairs<'a>(old: &'a Config, new: &'a Config) -> impl Iterator<Item = (&'a Setting, &'a Setting)> {
    // Both lists are in the order of the key table, so equal places have equal keys.
    old.effective.entries().iter().zip(new.effective.entries())
}

/// Returns true if the change takes effect without a restart. A live secret may be replaced but not added or removed:
/// its presence determines the credential that is sent and the callers that share entries.
fn takes_effect(old: &Setting, new: &Setting) -> bool {
    let comes_or_goes = (old.shown == DisplayValue::Nothing) != (new.shown == DisplayValue::Nothing);
    new.key.live && !(new.key.secret && comes_or_goes)
}

/// Returns the new configuration: live keys from `read`, all others from `running`.
fn carry(running: &Config, read: Config) -> Config {
    let effective = pairs(running, &read).map(|(old, new)| if takes_effect(old, new) { new } else { old });
    let effective = Effective::new(effective.cloned());
    // Fields that are not named keep their running values, because a part built at the start depends on them.
    Config {
        compression: read.compression,
        upstream: carry_upstream(&running.upstream, read.upstream),
        targets: carry_targets(&running.targets, read.targets),
        batch: read.batch,
        retry: read.retry,
        breaker: read.breaker,
        fallback: read.fallback,
        priority: read.priority,
        drift: read.drift,
        cache: CacheConfig {
            ttl: read.cache.ttl,
            stale_for: read.cache.stale_for,
            extra_fields: read.cache.extra_fields,
            same_models: read.cache.same_models,
            derive_dimensions: read.cache.derive_dimensions,
            codec: read.cache.codec,
            ..running.cache.clone()
        },
        auth: AuthConfig { vouch_ttl: read.auth.vouch_ttl, ..running.auth.clone() },
        limits: LimitsConfig {
            request_timeout: read.limits.request_timeout,
            long_input: read.limits.long_input,
            ..running.limits.clone()
        },
        budget: read.budget,
        savings: read.savings,
        log: LogConfig { level: read.log.level, ..running.log },
        traces: carry_traces(&running.traces, read.traces),
        effective,
        ..running.clone()
    }
}

fn carry_upstream(running: &UpstreamConfig, read: UpstreamConfig) -> UpstreamConfig {
    // See `takes_effect`: a key may be replaced, but not added or removed.
    let replaced = running.api_key.is_some() && read.api_key.is_some();
    UpstreamConfig {
        api_key: if replaced { read.api_key } else { running.api_key.clone() },
        encoding: read.encoding,
        compression: read.compression,
        headers_timeout: read.headers_timeout,
        call_timeout: read.call_timeout,
        ..running.clone()
    }
}

/// Returns the targets with their new keys, if they are the same places as before.
fn carry_targets(running: &[TargetConfig], read: Vec<TargetConfig>) -> Vec<TargetConfig> {
    let are_same = running.len() == read.len() && running.iter().zip(&read).all(|(old, new)| old.is_same_place(new));
    let with_key = |(old, new): (&TargetConfig, TargetConfig)| TargetConfig { api_key: new.api_key, ..old.clone() };
    if are_same { running.iter().zip(read).map(with_key).collect() } else { running.to_vec() }
}

fn carry_traces(running: &TracesConfig, read: TracesConfig) -> TracesConfig {
    let replaced = running.headers.is_some() && read.headers.is_some();
    TracesConfig { headers: if replaced { read.headers } else { running.headers.clone() }, ..running.clone() }
}

#[cfg(test)]
mod tests {
    use super::super::KEYS;
    use super::*;

    /// A non-default value for every key except secrets and files.
    const OTHERS: &[(&str, &str)] = &[
        ("listen", "127.0.0.1:1"),
        ("admin_listen", "127.0.0.1:2"),
        ("workers", "77"),
        ("compression", "on"),
        ("targets", r#"[{"name":"seven","url":"http://localhost:9/v1","api_key":"seven"}]"#),
        ("upstream.url", "http://localhost:9/v1"),
        ("upstream.identity", "http://localhost:7/v1"),
        ("upstream.api_key_header", "api-key"),
        ("upstream.encoding", "float"),
        ("upstream.compression", "off"),
        ("upstream.max_concurrent", "7"),
        ("upstream.connect_timeout", "7s"),
        ("upstream.headers_timeout", "7s"),
        ("upstream.call_timeout", "7s"),
        ("upstream.idle_timeout", "7s"),
        ("upstream.max_connection_age", "7s"),
        ("upstream.max_answer_bytes", "777"),
        ("upstream.proxy", "http://seven:7"),
        ("upstream.http2", "auto"),
        ("batch.max_inputs", "7"),
        ("batch.max_tokens", "777"),
        ("batch.target_time", "3s"),
        ("cache.same_models", "a/m=m"),
        ("retry.max_attempts", "7"),
        ("retry.base_wait", "7ms"),
        ("retry.max_wait", "7s"),
        ("retry.budget_ratio", "0.7"),
        ("breaker.failures", "7"),
        ("breaker.open_for", "7s"),
        ("breaker.max_open", "7m"),
        ("pace.mode", "off"),
        ("pace.requests_per_minute", "7"),
        ("pace.tokens_per_minute", "7"),
        ("pace.concurrent", "7"),
        ("priority.bulk_from", "7"),
        ("drift.every", "7s"),
        ("drift.action", "refetch"),
        ("drift.bound", "0.7"),
        ("fallback.mode", "error"),
        ("fallback.mock_dimensions", "7"),
        ("cache.ttl", "7s"),
        ("cache.stale_for", "7s"),
        ("cache.max_entries", "7"),
        ("cache.scope", "shared"),
        ("cache.extra_fields", "[\"seven\"]"),
        ("cache.key_headers", "x-seven"),
        ("cache.derive_dimensions", "true"),
        ("limits.long_input", "reject, m=truncate"),
        ("cache.codec", "int8"),
        ("cache.memory_percent", "7"),
        ("cache.answers_percent", "7"),
        ("disk.enabled", "false"),
        ("disk.path", "/seven"),
        ("disk.max_mb", "777"),
        ("disk.queue_mb", "7"),
        ("disk.off_for", "7s"),
        ("redis.url", "redis://localhost:7"),
        ("redis.cluster", "true"),
        ("redis.username", "seven"),
        ("redis.key_prefix", "seven:"),
        ("redis.timeout", "7ms"),
        ("redis.connect_timeout", "7s"),
        ("redis.queue_mb", "7"),
        ("redis.lease", "7s"),
        ("auth.vouch_ttl", "7s"),
        ("auth.identity", "token"),
        ("auth.credential_headers", "seven"),
        ("limits.max_header_bytes", "7777777"),
        ("limits.header_timeout", "7s"),
        ("limits.idle_timeout", "7s"),
        ("limits.body_timeout", "7s"),
        ("limits.max_body_bytes", "777"),
        ("limits.request_timeout", "7s"),
        ("limits.max_connections", "7"),
        ("limits.max_requests", "7"),
        ("limits.max_inflight_bytes", "77777777"),
        ("memory.limit_mb", "777"),
        ("memory.check_every", "7s"),
        ("budget.tokens_per_day", "7"),
        ("budget.money_per_day", "0.7"),
        ("budget.namespace_tokens_per_day", "seven=7"),
        ("budget.namespace_money_per_day", "seven=0.7"),
        ("savings.prices", "seven=7"),
        ("savings.currency", "EUR"),
        ("log.level", "debug"),
        ("log.format", "json"),
        ("traces.endpoint", "http://localhost:7"),
        ("traces.url", "http://localhost:7/traces"),
        ("traces.sample_ratio", "0.7"),
        ("traces.service_name", "seven"),
        ("traces.resource", "seven=7"),
        ("traces.timeout", "7s"),
        ("traces.send_every", "7s"),
        ("traces.queue_spans", "7"),
        ("traces.proxy", "http://seven:7"),
        ("reload.poll_every", "7s"),
        ("shutdown.grace", "7s"),
    ];

    fn config(pairs: &[(&str, &str)]) -> Config {
        Config::from_pairs(pairs).expect("must be free of faults")
    }

    fn plain(config: &Config) -> String {
        format!("{:?}", Config { effective: Effective::default(), ..config.clone() })
    }

    #[test]
    fn exactly_the_live_keys_of_the_table_take_effect_on_reload() {
        let before = config(&[]);
        for (name, value) in OTHERS {
            let key = KEYS.iter().find(|key| key.name == *name).expect("must be a key");
            let read = config(&[(name, value)]);
            assert_ne!(plain(&before), plain(&read), "{name} = {value} changes nothing");
            let live = Live::new(before.clone());
            let changes = live.apply(read.clone());
            let after = plain(&live.load());
            assert_eq!(after, plain(if key.live { &read } else { &before }), "{name}");
            let lists = (changes.live.contains(name), changes.needs_restart.contains(name));
            assert_eq!(lists, (key.live, !key.live), "{name}");
        }
    }

    #[test]
    fn every_key_but_secrets_and_files_is_tried_on_reload() {
        // `pace.shared` needs `redis.url` beside it.
        let special = |name: &str| {
            name == "pace.shared" || name.ends_with("_file") || KEYS.iter().any(|key| key.secret && key.name == name)
        };
        let tried = |name: &str| OTHERS.iter().any(|(other, _)| *other == name);
        let missing: Vec<_> = KEYS.iter().map(|key| key.name).filter(|name| !special(name) && !tried(name)).collect();
        assert!(missing.is_empty(), "give these another value: {missing:?}");
    }

    #[test]
    fn an_api_key_is_replaced_while_running() {
        let live = Live::new(config(&[("upstream.api_key", "old")]));
        let changes = live.apply(config(&[("upstream.api_key", "new")]));
        assert_eq!(changes, Changes { live: vec!["upstream.api_key"], needs_restart: vec![] });
        assert_eq!(live.load().upstream.api_key.as_ref().map(super::super::Secret::reveal), Some("new"));
    }

    #[test]
    fn an_api_key_is_neither_added_nor_removed_while_running() {
        let (with, without) = (config(&[("upstream.api_key", "key")]), config(&[]));
        for (running, read) in [(&with, &without), (&without, &with)] {
            let live = Live::new(running.clone());
            let changes = live.apply(read.clone());
            assert_eq!(changes.needs_restart, ["upstream.api_key", "cache.scope"]);
            assert_eq!(live.load().upstream.api_key, running.upstream.api_key);
            assert_eq!(live.load().cache.scope, running.cache.scope);
            assert_eq!(live.load().effective.to_text(), running.effective.to_text());
        }
    }

    #[test]
    fn keys_of_targets_are_replaced_while_running_and_nothing_else_of_them() {
        let targets = |key: &str, url: &str| format!(r#"[{{"name":"a","url":"{url}","api_key":"{key}"}}]"#);
        let live = Live::new(config(&[("targets", &targets("old", "http://h/v1"))]));
        live.apply(config(&[("targets", &targets("new", "http://h/v1"))]));
        assert_eq!(live.load().targets[0].api_key.reveal(), "new");
        live.apply(config(&[("targets", &targets("newer", "http://other/v1"))]));
        let running = live.load().targets[0].clone();
        assert_eq!((running.api_key.reveal(), running.url.host()), ("new", Some("h")));
    }

    #[test]
    fn collector_headers_are_replaced_but_not_added_or_removed_while_running() {
        let (old, new, none) =
            (config(&[("traces.headers", "a=old")]), config(&[("traces.headers", "a=new")]), config(&[]));
        for (running, read, after) in [(&old, &new, Some("new")), (&old, &none, Some("old")), (&none, &new, None)] {
            let live = Live::new(running.clone());
            live.apply(read.clone());
            let headers = live.load().traces.headers.clone();
            assert_eq!(headers.as_ref().map(|headers| headers["a"].to_str().expect("text")), after);
        }
    }

    /// Each limit was read together with an older value of the other.
    #[test]
    fn a_reload_keeps_the_body_limit_below_the_limit_in_flight() {
        let live = Live::new(config(&[("limits.max_body_bytes", "1000"), ("limits.max_inflight_bytes", "2000")]));
        live.apply(config(&[("limits.max_body_bytes", "3000"), ("limits.max_inflight_bytes", "4000")]));
        let limits = &live.load().limits;
        assert!(limits.max_body_bytes <= limits.max_inflight_bytes, "{limits:?}");
    }

    #[test]
    fn another_spelling_of_the_same_value_is_not_a_change() {
        let changes = changes(&config(&[("cache.ttl", "3600")]), &config(&[("cache.ttl", "60m")]));
        assert_eq!(changes, Changes::default());
    }
}
