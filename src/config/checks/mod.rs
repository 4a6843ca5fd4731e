//! Converts raw values to checked ones, section by section, then checks conditions across keys.

mod addresses;
mod savings;
mod stores;
mod traces;

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::thread::available_parallelism;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};
use toml::Value;

use super::raw::Raw;
use super::reader::Reader;
use super::{
    Admin, Auth, Batch, Breaker, Cache, Config, Effective, Encoding, Fallback, FallbackMode, Faults, KeyHeader, Limits,
    Log, LogFormat, Memory, Reload, Retry, Scope, Secret, Shutdown, Tls, Upstream, UpstreamTarget, parse_log_level,
    values,
};
use crate::vector::packed::Codec;

const MIB: u64 = 1024 * 1024;
const ANY_LENGTH: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(24 * 3650);
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(24);
const ANY_BYTES: RangeInclusive<u64> = 1..=1 << 40;
const ANY_COUNT: RangeInclusive<u64> = 1..=1_000_000;
/// The largest default of `limits.max_inflight_bytes`.
const MOST_INFLIGHT_BYTES: usize = 128 << 20;
/// The largest default of `limits.max_body_bytes`.
const MOST_BODY_BYTES: usize = 64 << 20;
/// The fields of an embeddings request that vecho interprets itself.
const OWN_FIELDS: [&str; 5] = ["model", "input", "encoding_format", "dimensions", "user"];

/// Returns a complete and consistent configuration, or every fault.
pub(super) fn check(raw: Raw) -> Result<Config, Faults> {
    let mut reader = Reader::new(raw);
    let mut config = read(&mut reader);
    addresses::check(&mut reader, &config);
    check_shares(&mut reader, &config);
    check_orders(&mut reader, &config);
    check_scope(&mut reader, &config);
    config.effective = reader.finish()?;
    Ok(config)
}

fn read(reader: &mut Reader) -> Config {
    let listen = reader.required("listen", address);
    let admin_listen = reader.required("admin_listen", address);
    let workers = workers(reader);
    let upstream = upstream(reader);
    let cache = cache(reader, &upstream);
    let memory = memory(reader);
    Config {
        listen,
        admin_listen,
        workers,
        upstream,
        batch: batch(reader),
        retry: retry(reader),
        breaker: breaker(reader),
        fallback: fallback(reader),
        cache,
        disk: stores::disk(reader),
        redis: stores::redis(reader),
        auth: auth(reader),
        limits: limits(reader, &memory),
        memory,
        tls: tls(reader),
        admin: Admin { token: header_secret(reader, "admin.token") },
        savings: savings::savings(reader),
        log: log(reader),
        traces: traces::traces(reader),
        reload: Reload { poll_every: reader.duration("reload.poll_every", &ANY_LENGTH) },
        shutdown: Shutdown { grace: reader.duration("shutdown.grace", &(Duration::ZERO..=Duration::from_hours(1))) },
        effective: Effective::default(),
    }
}

/// Parses an address with a port. The only known name is `localhost`: others may have several addresses, or none at
/// start.
fn address(value: &Value) -> Result<SocketAddr, String> {
    let text = values::text(value)?;
    let local = text.rsplit_once(':').filter(|(host, _)| host.trim_end_matches('.').eq_ignore_ascii_case("localhost"));
    let address = match local {
        Some((_, port)) => port.parse().ok().map(|port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        None => text.parse().ok(),
    };
    address.ok_or_else(|| {
        format!("{value} is not an address with a port, such as 127.0.0.1:7861, [::]:7861 or localhost:7861")
    })
}

fn workers(reader: &mut Reader) -> usize {
    let said = reader.optional_count("workers", 1..=1024);
    let workers = said.unwrap_or_else(|| available_parallelism().map_or(1, usize::from));
    reader.show("workers", i64::try_from(workers).unwrap_or(i64::MAX));
    workers
}

fn upstream(reader: &mut Reader) -> Upstream {
    let target = target_of(reader);
    Upstream {
        api_key: header_secret(reader, "upstream.api_key"),
        api_key_header: key_header(reader, &target),
        encoding: reader.choice("upstream.encoding", &ENCODINGS),
        max_concurrent: reader.count("upstream.max_concurrent", 1..=10_000),
        connect_timeout: reader.duration("upstream.connect_timeout", &TIMEOUT),
        headers_timeout: reader.optional_duration("upstream.headers_timeout", &TIMEOUT),
        call_timeout: reader.duration("upstream.call_timeout", &TIMEOUT),
        idle_timeout: reader.duration("upstream.idle_timeout", &TIMEOUT),
        max_connection_age: reader.duration("upstream.max_connection_age", &TIMEOUT),
        max_answer_bytes: reader.count("upstream.max_answer_bytes", ANY_BYTES),
        ca_file: reader.file("upstream.ca_file"),
        target,
    }
}

const ENCODINGS: [(&str, Encoding); 4] = [
    ("auto", Encoding::Auto),
    ("as_asked", Encoding::AsAsked),
    ("base64", Encoding::Base64),
    ("float", Encoding::Float),
];

fn target_of(reader: &mut Reader) -> UpstreamTarget {
    let target = reader.required("upstream.url", |value| target(value.as_str().unwrap_or_default()));
    let shown = match &target {
        UpstreamTarget::Mock => "mock:".to_owned(),
        UpstreamTarget::Http(uri) => uri.to_string().trim_end_matches('/').to_owned(),
    };
    reader.show("upstream.url", shown);
    target
}

/// Parses the upstream target. Messages omit the text, which may contain a password, or a key in its query.
fn target(text: &str) -> Result<UpstreamTarget, String> {
    if text == "mock:" {
        return Ok(UpstreamTarget::Mock);
    }
    if text.contains(['?', '#']) {
        return Err("must not have a query or fragment".to_owned());
    }
    let form = || "must be http://HOST/PATH, https://HOST/PATH or mock:".to_owned();
    let uri: Uri = text.trim_end_matches('/').parse().map_err(|_| form())?;
    let host = uri.host().unwrap_or_default();
    match (uri.scheme_str(), uri.authority()) {
        (_, Some(authority)) if authority.as_str().contains('@') => {
            Err("must not hold a user or password; use upstream.api_key".to_owned())
        }
        (Some("http" | "https"), Some(_)) if !host.is_empty() => Ok(UpstreamTarget::Http(uri)),
        _ => Err(form()),
    }
}

fn key_header(reader: &mut Reader, target: &UpstreamTarget) -> KeyHeader {
    let words =
        [("auto", None), ("authorization", Some(KeyHeader::Authorization)), ("api-key", Some(KeyHeader::ApiKey))];
    let header = reader.choice("upstream.api_key_header", &words).unwrap_or_else(|| usual_header(target));
    let shown = if header == KeyHeader::ApiKey { "api-key" } else { "authorization" };
    reader.show("upstream.api_key_header", shown);
    header
}

fn usual_header(target: &UpstreamTarget) -> KeyHeader {
    let UpstreamTarget::Http(uri) = target else { return KeyHeader::Authorization };
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    let azure = host.ends_with(".azure.com") || uri.path().starts_with("/openai");
    if azure { KeyHeader::ApiKey } else { KeyHeader::Authorization }
}

/// Reads a secret that is sent in a header.
fn header_secret(reader: &mut Reader, name: &str) -> Option<Secret> {
    let secret = reader.secret(name)?;
    if HeaderValue::from_str(secret.reveal()).is_err() {
        reader.fault(name, "holds characters that a header cannot carry");
    }
    Some(secret)
}

fn batch(reader: &mut Reader) -> Batch {
    Batch {
        max_inputs: reader.count("batch.max_inputs", 1..=100_000),
        max_tokens: reader.count("batch.max_tokens", 1..=100_000_000),
        target_time: reader.duration("batch.target_time", &TIMEOUT),
    }
}

fn retry(reader: &mut Reader) -> Retry {
    Retry {
        max_attempts: reader.count("retry.max_attempts", 1..=20),
        base_wait: reader.duration("retry.base_wait", &TIMEOUT),
        max_wait: reader.duration("retry.max_wait", &TIMEOUT),
        budget_ratio: reader.ratio("retry.budget_ratio", &(0.0..=10.0)),
    }
}

fn breaker(reader: &mut Reader) -> Breaker {
    Breaker {
        failures: reader.count("breaker.failures", 0..=1_000_000),
        open_for: reader.duration("breaker.open_for", &TIMEOUT),
        max_open: reader.duration("breaker.max_open", &TIMEOUT),
    }
}

fn fallback(reader: &mut Reader) -> Fallback {
    let modes = [("error", FallbackMode::Error), ("stale", FallbackMode::Stale), ("mock", FallbackMode::Mock)];
    Fallback {
        mode: reader.choice("fallback.mode", &modes),
        mock_dimensions: reader.count("fallback.mock_dimensions", 1..=65_536),
    }
}

fn cache(reader: &mut Reader, upstream: &Upstream) -> Cache {
    let extra_fields = reader.list("cache.extra_fields", extra_field);
    let key_headers = reader.list("cache.key_headers", header_name);
    let same_models = reader.list("cache.same_models", same_model);
    Cache {
        ttl: reader.duration("cache.ttl", &(Duration::from_secs(1)..=*ANY_LENGTH.end())),
        stale_for: reader.duration("cache.stale_for", &ANY_LENGTH),
        max_entries: reader.optional_count("cache.max_entries", 1..=1 << 40),
        scope: scope(reader, upstream),
        key_secret: reader.secret("cache.key_secret"),
        extra_fields: extra_fields.unwrap_or_default().into_iter().collect(),
        key_headers: key_headers.unwrap_or_default(),
        same_models: same_models.unwrap_or_default().into_iter().collect(),
        codec: reader.choice("cache.codec", &CODECS),
        memory_percent: reader.count("cache.memory_percent", 1..=90),
        answers_percent: reader.count("cache.answers_percent", 0..=90),
    }
}

const CODECS: [(&str, Codec); 4] =
    [("lossless", Codec::Lossless), ("bf16", Codec::Bf16), ("int8", Codec::Int8), ("f32", Codec::F32)];

/// Parses `NAME=MODEL`.
fn same_model(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').map(|(name, model)| (name.trim(), model.trim()));
    match pair {
        Some((name, model)) if !name.is_empty() && !model.is_empty() && name != model => {
            Ok((name.to_owned(), model.to_owned()))
        }
        _ => Err(format!("{text:?} is not NAME=MODEL, such as azure/text-embedding-3-small=text-embedding-3-small")),
    }
}

fn extra_field(name: &str) -> Result<String, String> {
    match name {
        "" => Err("must not hold an empty name".to_owned()),
        own if OWN_FIELDS.contains(&own) => Err(format!("must not hold {own}, which always has a meaning of its own")),
        extra => Ok(extra.to_owned()),
    }
}

fn scope(reader: &mut Reader, upstream: &Upstream) -> Scope {
    let words = [
        ("credential", Some(Scope::Credential)),
        ("proxy", Some(Scope::Proxy)),
        ("shared", Some(Scope::Shared)),
        ("auto", None),
    ];
    // If vecho pays for all callers, they may share entries; otherwise each credential has its own.
    let keyed = upstream.api_key.is_some() || upstream.target == UpstreamTarget::Mock;
    let usual = if keyed { Scope::Proxy } else { Scope::Credential };
    let scope = reader.choice("cache.scope", &words).unwrap_or(usual);
    let shown = words.iter().find(|(_, meaning)| *meaning == Some(scope)).map_or("auto", |(word, _)| word);
    reader.show("cache.scope", shown);
    scope
}

fn auth(reader: &mut Reader) -> Auth {
    let credential_headers = reader.list("auth.credential_headers", header_name);
    if credential_headers.as_ref().is_some_and(Vec::is_empty) {
        reader.fault("auth.credential_headers", "must name at least one header");
    }
    Auth {
        vouch_ttl: reader.duration("auth.vouch_ttl", &ANY_LENGTH),
        credential_headers: credential_headers.unwrap_or_default(),
    }
}

fn header_name(name: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} is not the name of a header"))
}

fn limits(reader: &mut Reader, memory: &Memory) -> Limits {
    let share = usize::try_from(memory.limit_bytes / 5).unwrap_or(usize::MAX).min(MOST_INFLIGHT_BYTES);
    let max_inflight_bytes = reader.following_count("limits.max_inflight_bytes", ANY_BYTES, share, "memory.limit_mb");
    let largest_body = max_inflight_bytes.min(MOST_BODY_BYTES);
    Limits {
        max_header_bytes: reader.count("limits.max_header_bytes", 8192..=16 * MIB),
        header_timeout: reader.duration("limits.header_timeout", &TIMEOUT),
        idle_timeout: reader.duration("limits.idle_timeout", &TIMEOUT),
        body_timeout: reader.duration("limits.body_timeout", &TIMEOUT),
        max_body_bytes: reader.following_count(
            "limits.max_body_bytes",
            ANY_BYTES,
            largest_body,
            "limits.max_inflight_bytes",
        ),
        request_timeout: reader.duration("limits.request_timeout", &TIMEOUT),
        max_connections: reader.count("limits.max_connections", ANY_COUNT),
        max_requests: reader.count("limits.max_requests", ANY_COUNT),
        max_inflight_bytes,
    }
}

fn memory(reader: &mut Reader) -> Memory {
    let limit_mb: u64 = reader.count("memory.limit_mb", 32..=16 * MIB);
    let check_every = Duration::from_millis(10)..=Duration::from_hours(1);
    Memory { limit_bytes: limit_mb * MIB, check_every: reader.duration("memory.check_every", &check_every) }
}

fn tls(reader: &mut Reader) -> Option<Tls> {
    match (reader.file("tls.cert_file"), reader.file("tls.key_file")) {
        (Some(cert_file), Some(key_file)) => Some(Tls { cert_file, key_file }),
        (Some(_), None) => {
            reader.fault("tls.cert_file", "needs tls.key_file beside it");
            None
        }
        (None, Some(_)) => {
            reader.fault("tls.key_file", "needs tls.cert_file beside it");
            None
        }
        (None, None) => None,
    }
}

fn log(reader: &mut Reader) -> Log {
    let level = |value: &Value| {
        let level = values::text(value)?;
        parse_log_level(&level).map_err(|bad| bad.to_string())?;
        Ok(level)
    };
    Log {
        level: reader.required("log.level", level),
        format: reader.choice("log.format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]),
    }
}

fn check_shares(reader: &mut Reader, config: &Config) {
    let percent = config.cache.memory_percent + config.cache.answers_percent;
    if percent > 90 {
        let message = format!("with cache.answers_percent this makes {percent}; together they must leave 10 percent");
        reader.fault("cache.memory_percent", message);
    }
    let (body, inflight) = (config.limits.max_body_bytes, config.limits.max_inflight_bytes);
    if body > inflight {
        let message = format!(
            "limits.max_inflight_bytes ({inflight}, by default a fifth of memory.limit_mb) is less than \
             limits.max_body_bytes ({body}): the largest body is never accepted"
        );
        reader.fault("limits.max_body_bytes", message);
    }
}

/// Rejects scope `proxy` without a key of vecho's own: any caller could then read what other callers fetched.
fn check_scope(reader: &mut Reader, config: &Config) {
    let is_open = config.upstream.api_key.is_none() && config.upstream.target != UpstreamTarget::Mock;
    if config.cache.scope == Scope::Proxy && is_open {
        let message = "proxy needs upstream.api_key, else any caller is served what others fetched; \
                       shared asks the upstream about each credential first";
        reader.fault("cache.scope", message);
    }
}

fn check_orders(reader: &mut Reader, config: &Config) {
    if config.retry.base_wait > config.retry.max_wait {
        reader.fault("retry.base_wait", "must not be longer than retry.max_wait");
    }
    if config.breaker.open_for > config.breaker.max_open {
        reader.fault("breaker.open_for", "must not be longer than breaker.max_open");
    }
}
