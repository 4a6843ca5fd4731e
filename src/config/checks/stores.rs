//! The tiers below memory.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use toml::Value;

use super::egress::identity;
use super::ranges::{MIB, TIMEOUT};
use crate::config::reader::Reader;
use crate::config::{DiskConfig, LeaseMode, RedisConfig, RedisNode, values};

/// A smaller store holds too few vectors to be useful; a larger one takes minutes to open.
const DISK_MIB: RangeInclusive<u64> = 16..=16 * MIB;
const QUEUE_MIB: RangeInclusive<u64> = 1..=4096;
/// The lease of a crashed replica blocks all others for this time.
const LEASE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_mins(5);
const AUTO: &str = "auto";
const REDIS_PORT: u16 = 6379;

pub(super) fn disk(reader: &mut Reader) -> DiskConfig {
    DiskConfig {
        enabled: reader.switch("disk.enabled"),
        path: reader.optional("disk.path", values::text).map(PathBuf::from),
        max_bytes: reader.count::<u64>("disk.max_mb", DISK_MIB) * MIB,
        queue_bytes: queue_bytes(reader, "disk.queue_mb"),
        off_for: reader.duration("disk.off_for", &TIMEOUT),
    }
}

pub(super) fn redis(reader: &mut Reader) -> RedisConfig {
    let redis = RedisConfig {
        nodes: reader.optional("redis.url", |value| nodes(&values::text(value)?)).unwrap_or_default(),
        cluster: reader.switch("redis.cluster"),
        username: reader.optional("redis.username", values::text),
        password: reader.secret("redis.password"),
        key_prefix: reader.required("redis.key_prefix", values::text),
        ca_file: reader.file("redis.ca_file"),
        identity: identity(reader, "redis.cert_file", "redis.key_file"),
        timeout: reader.duration("redis.timeout", &TIMEOUT),
        connect_timeout: reader.duration("redis.connect_timeout", &TIMEOUT),
        queue_bytes: queue_bytes(reader, "redis.queue_mb"),
        lease: lease(reader),
    };
    check(reader, &redis);
    redis
}

fn lease(reader: &mut Reader) -> LeaseMode {
    let mode = reader.required("redis.lease", lease_mode);
    reader.show(
        "redis.lease",
        match mode {
            LeaseMode::Auto => AUTO.to_owned(),
            LeaseMode::Off => values::shown_duration(Duration::ZERO),
            LeaseMode::Fixed(length) => values::shown_duration(length),
        },
    );
    mode
}

fn lease_mode(value: &Value) -> Result<LeaseMode, String> {
    if value.as_str() == Some(AUTO) {
        return Ok(LeaseMode::Auto);
    }
    match values::duration(value, &LEASE) {
        Ok(length) if length.is_zero() => Ok(LeaseMode::Off),
        Ok(length) => Ok(LeaseMode::Fixed(length)),
        Err(message) => Err(format!("{message}; \"{AUTO}\" is allowed, too")),
    }
}

fn queue_bytes(reader: &mut Reader, name: &str) -> usize {
    let mib: usize = reader.count(name, QUEUE_MIB);
    mib << 20
}

/// Parses the nodes of `redis.url`. Messages omit the text, which may contain a password.
fn nodes(text: &str) -> Result<Vec<RedisNode>, String> {
    text.split(',').map(|one| node(one.trim())).collect()
}

fn node(text: &str) -> Result<RedisNode, String> {
    let form = || "must be redis://HOST:PORT/DATABASE or rediss://HOST:PORT/DATABASE".to_owned();
    let uri: Uri = text.parse().map_err(|_| form())?;
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        // The address is shown in the effective configuration, so it must hold no secret.
        return Err("must not hold a user or password; use redis.username and redis.password".to_owned());
    }
    let tls = match uri.scheme_str() {
        Some("redis") => false,
        Some("rediss") => true,
        _ => return Err(form()),
    };
    let database = match uri.path().trim_matches('/') {
        "" => 0,
        number => number.parse::<u16>().map_err(|_| form())?.into(),
    };
    let host = uri.host().filter(|host| !host.is_empty() && uri.query().is_none()).ok_or_else(form)?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok(RedisNode { host, port: uri.port_u16().unwrap_or(REDIS_PORT), tls, database })
}

fn check(reader: &mut Reader, redis: &RedisConfig) {
    // Without a node the tier is off, and its other keys have no effect.
    let Some(first) = redis.nodes.first() else { return };
    if redis.nodes.len() > 1 && !redis.cluster {
        reader.fault("redis.url", "names several nodes, which only a cluster has; set redis.cluster");
    }
    if redis.cluster && redis.nodes.iter().any(|node| node.database != 0) {
        reader.fault("redis.url", "names a database, of which a cluster has only 0");
    }
    // All connections share one TLS configuration.
    if redis.nodes.iter().any(|node| node.tls != first.tls) {
        reader.fault("redis.url", "mixes redis:// and rediss://");
    }
    if redis.username.is_some() && redis.password.is_none() {
        reader.fault("redis.username", "needs redis.password beside it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn faults(pairs: &[(&str, &str)]) -> String {
        Config::from_pairs(pairs).expect_err("must have a fault").to_string()
    }

    #[test]
    fn a_redis_url_gives_host_port_database_and_tls() {
        let node = |host: &str, port, tls, database| Ok(RedisNode { host: host.to_owned(), port, tls, database });
        assert_eq!(super::node("redis://cache"), node("cache", 6379, false, 0));
        assert_eq!(super::node("rediss://cache:1/2"), node("cache", 1, true, 2));
        assert_eq!(super::node("redis://[::1]:7"), node("::1", 7, false, 0));
        for wrong in ["cache:6379", "http://cache", "redis://", "redis://h/x", "redis://h/1?x=y", "redis:///1"] {
            assert!(super::node(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_password_in_the_address_is_refused_and_not_repeated() {
        let said = faults(&[("redis.url", "redis://me:hunter2@cache")]);
        assert!(said.contains("redis.password") && !said.contains("hunter2"), "{said}");
    }

    #[test]
    fn a_lease_is_automatic_fixed_or_off() {
        let read =
            |text: &str| Config::from_pairs(&[("redis.lease", text)]).expect("must be free of faults").redis.lease;
        assert_eq!(Config::from_pairs(&[]).expect("the defaults are legal").redis.lease, LeaseMode::Auto);
        assert_eq!(
            ["auto", "0s", "0", "90s"].map(read),
            [LeaseMode::Auto, LeaseMode::Off, LeaseMode::Off, LeaseMode::Fixed(Duration::from_secs(90)),]
        );
        for wrong in ["always", "6m", "-1s", ""] {
            let said = faults(&[("redis.lease", wrong)]);
            assert!(said.contains("redis.lease") && said.contains("\"auto\" is allowed, too"), "{said}");
        }
    }

    #[test]
    fn contradictory_redis_settings_are_refused() {
        let url = ("redis.url", "redis://a,redis://b");
        assert!(faults(&[url]).contains("redis.cluster"));
        assert!(faults(&[("redis.url", "redis://a/1"), ("redis.cluster", "true")]).contains("a cluster has only 0"));
        assert!(faults(&[("redis.url", "redis://a,rediss://b"), ("redis.cluster", "true")]).contains("mixes"));
        assert!(faults(&[("redis.url", "redis://a"), ("redis.username", "me")]).contains("redis.password"));
        assert!(Config::from_pairs(&[url, ("redis.cluster", "true")]).is_ok());
    }
}
