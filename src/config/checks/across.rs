//! Conditions across keys.

use http::header::AUTHORIZATION;

use crate::config::reader::Reader;
use crate::config::{CallerIdentity, Config, Scope, UpstreamTarget};

/// Checks the conditions across keys, except those of addresses.
pub(super) fn check(reader: &mut Reader, config: &Config) {
    check_shares(reader, config);
    check_orders(reader, config);
    check_scope(reader, config);
    check_identity(reader, config);
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

/// Rejects identities by token where no token can prove itself: the upstream must see it.
fn check_identity(reader: &mut Reader, config: &Config) {
    if config.auth.identity != CallerIdentity::Token {
        return;
    }
    if config.upstream.api_key.is_some() {
        let message = "token needs callers that send their own tokens to the upstream, which checks them, but \
                       upstream.api_key replaces these tokens; remove the key";
        reader.fault("auth.identity", message);
    }
    if !config.auth.credential_headers.contains(&AUTHORIZATION) {
        let message = "token reads the header authorization, which auth.credential_headers must name";
        reader.fault("auth.identity", message);
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
