//! The Redis tier: connection, login, version, eviction.

use super::check::{CheckResult, STEP_TIMEOUT};
use crate::cache::redis::{ServerFacts, inspect};
use crate::config::Config;

const CHECK: &str = "redis";

/// Checks the server, or the cluster.
pub(super) async fn check(config: &Config) -> CheckResult {
    let Some(node) = config.redis.nodes.first() else {
        return CheckResult::ok(CHECK, "not configured");
    };
    let address = format!("{}:{}", node.host, node.port);
    match inspect(&config.redis, STEP_TIMEOUT).await {
        Ok(facts) => judge(&address, &facts, config),
        Err(cause) => CheckResult::fault(CHECK, format!("{address}: {cause}"), remedy(&cause)),
    }
}

fn judge(address: &str, facts: &ServerFacts, config: &Config) -> CheckResult {
    let version = facts.version.as_deref().map_or_else(String::new, |version| format!("version {version}, "));
    let round_trip_ms = facts.round_trip.as_secs_f64() * 1_000.0;
    let message = format!("{address}: {version}round trip {round_trip_ms:.1} ms");
    let policy = facts.policy.as_deref().unwrap_or("unknown");
    let max_mb = facts.max_bytes.map_or(0, |bytes| bytes >> 20);
    if facts.is_replica {
        let remedy = "set redis.url to the primary server";
        return CheckResult::fault(CHECK, format!("{message}; it is a replica, which refuses writes"), remedy);
    }
    if facts.round_trip > config.redis.timeout {
        let timeout_ms = config.redis.timeout.as_millis();
        let message = format!("{message}, longer than redis.timeout ({timeout_ms} ms)");
        return CheckResult::warning(CHECK, message, "use a nearer server, or raise redis.timeout");
    }
    match (facts.max_bytes, policy) {
        (None, _) | (_, "unknown") => CheckResult::ok(CHECK, message),
        (Some(0), _) => {
            let message = format!("{message}; maxmemory is not set, so it grows until the machine is full");
            CheckResult::warning(CHECK, message, "set maxmemory, and maxmemory-policy volatile-lru")
        }
        (_, "noeviction") => {
            let message = format!("{message}; maxmemory-policy is noeviction: it refuses writes at {max_mb} MiB");
            CheckResult::warning(CHECK, message, "set maxmemory-policy volatile-lru")
        }
        (_, policy) if policy.starts_with("allkeys") => {
            let message = format!("{message}; maxmemory-policy is {policy}, which can evict the list of purges");
            CheckResult::warning(CHECK, message, "set maxmemory-policy volatile-lru")
        }
        (_, policy) => CheckResult::ok(CHECK, format!("{message}, maxmemory {max_mb} MiB with {policy}")),
    }
}

fn remedy(cause: &str) -> &'static str {
    let is_login = ["redis.username", "NOAUTH", "WRONGPASS", "NOPERM"].iter().any(|word| cause.contains(word));
    if is_login {
        "correct redis.username and redis.password"
    } else if cause.contains("redis.cluster") {
        "set redis.cluster = true"
    } else {
        "start the server, or correct redis.url (rediss:// with TLS)"
    }
}
