//! Reads all sections into a configuration; the small sections are checked here.

use std::thread::available_parallelism;
use std::time::Duration;

use toml::Value;

use super::address::address;
use super::egress::identity;
use super::headers::header_secret;
use super::ranges::{ANY_LENGTH, TIMEOUT};
use super::{
    across, addresses, budget, cache, compression, drift, limits, pace, savings, stores, targets, traces, upstream,
};
use crate::config::raw::Raw;
use crate::config::reader::Reader;
use crate::config::{
    AdminConfig, BatchConfig, BreakerConfig, Config, Effective, FallbackConfig, FallbackMode, Faults, LogConfig,
    LogFormat, ReloadConfig, RetryConfig, ShutdownConfig, parse_log_level, values,
};

/// Returns a complete and consistent configuration, or every fault.
pub(in crate::config) fn check(mut raw: Raw) -> Result<Config, Faults> {
    raw.leave_application_key();
    let mut reader = Reader::new(raw);
    // Faulty values are replaced by defaults, so the checks across keys run in any case.
    let mut config = read(&mut reader);
    addresses::check(&mut reader, &config);
    across::check(&mut reader, &config);
    // All faults are collected by now, so they are reported together.
    config.effective = reader.finish()?;
    Ok(config)
}

fn read(reader: &mut Reader) -> Config {
    let listen = reader.required("listen", address);
    let admin_listen = reader.required("admin_listen", address);
    let workers = workers(reader);
    let compression = compression::to_callers(reader);
    let mut upstream = upstream::upstream(reader);
    let targets = targets::targets(reader, &mut upstream);
    let cache = cache::cache(reader, &upstream);
    let memory = limits::memory(reader);
    let savings = savings::savings(reader);
    Config {
        listen,
        admin_listen,
        workers,
        compression,
        upstream,
        pace: pace::pace(reader, &targets),
        priority: pace::priority(reader),
        targets,
        batch: batch(reader),
        retry: retry(reader),
        breaker: breaker(reader),
        fallback: fallback(reader),
        drift: drift::drift(reader),
        cache,
        disk: stores::disk(reader),
        redis: stores::redis(reader),
        auth: cache::auth(reader),
        limits: limits::limits(reader, &memory),
        memory,
        tls: identity(reader, "tls.cert_file", "tls.key_file"),
        admin: AdminConfig { token: header_secret(reader, "admin.token") },
        budget: budget::budget(reader, &savings),
        savings,
        log: log(reader),
        traces: traces::traces(reader),
        reload: ReloadConfig { poll_every: reader.duration("reload.poll_every", &ANY_LENGTH) },
        shutdown: ShutdownConfig {
            grace: reader.duration("shutdown.grace", &(Duration::ZERO..=Duration::from_hours(1))),
        },
        effective: Effective::default(),
    }
}

fn workers(reader: &mut Reader) -> usize {
    let said = reader.optional_count("workers", 1..=1024);
    let workers = said.unwrap_or_else(|| available_parallelism().map_or(1, usize::from));
    reader.show("workers", i64::try_from(workers).unwrap_or(i64::MAX));
    workers
}

fn batch(reader: &mut Reader) -> BatchConfig {
    BatchConfig {
        max_inputs: reader.count("batch.max_inputs", 1..=100_000),
        max_tokens: reader.count("batch.max_tokens", 1..=100_000_000),
        target_time: reader.duration("batch.target_time", &TIMEOUT),
    }
}

fn retry(reader: &mut Reader) -> RetryConfig {
    RetryConfig {
        max_attempts: reader.count("retry.max_attempts", 1..=20),
        base_wait: reader.duration("retry.base_wait", &TIMEOUT),
        max_wait: reader.duration("retry.max_wait", &TIMEOUT),
        budget_ratio: reader.ratio("retry.budget_ratio", &(0.0..=10.0)),
    }
}

fn breaker(reader: &mut Reader) -> BreakerConfig {
    BreakerConfig {
        failures: reader.count("breaker.failures", 0..=1_000_000),
        open_for: reader.duration("breaker.open_for", &TIMEOUT),
        max_open: reader.duration("breaker.max_open", &TIMEOUT),
    }
}

fn fallback(reader: &mut Reader) -> FallbackConfig {
    let modes = [FallbackMode::Error, FallbackMode::Stale, FallbackMode::Mock].map(|mode| (mode.name(), mode));
    FallbackConfig {
        mode: reader.choice("fallback.mode", &modes),
        mock_dimensions: reader.count("fallback.mock_dimensions", 1..=65_536),
    }
}

fn log(reader: &mut Reader) -> LogConfig {
    let level = |value: &Value| {
        let level = values::text(value)?;
        parse_log_level(&level).map_err(|bad| bad.to_string())?;
        Ok(level)
    };
    LogConfig {
        level: reader.required("log.level", level),
        format: reader.choice("log.format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]),
    }
}
