//! Checks of `[cache]` and `[auth]`.

use std::time::Duration;

use super::headers::header_name;
use super::ranges::ANY_LENGTH;
use crate::config::reader::Reader;
use crate::config::{AuthConfig, CacheConfig, CallerIdentity, Scope, UpstreamConfig, UpstreamTarget};
use crate::vector::packed::Codec;

/// The fields of an embeddings request that vecho interprets itself.
const OWN_FIELDS: [&str; 5] = ["model", "input", "encoding_format", "dimensions", "user"];

pub(super) fn cache(reader: &mut Reader, upstream: &UpstreamConfig) -> CacheConfig {
    let extra_fields = reader.list("cache.extra_fields", extra_field);
    let key_headers = reader.list("cache.key_headers", header_name);
    let same_models = reader.list("cache.same_models", same_model);
    CacheConfig {
        ttl: reader.duration("cache.ttl", &(Duration::from_secs(1)..=*ANY_LENGTH.end())),
        stale_for: reader.duration("cache.stale_for", &ANY_LENGTH),
        max_entries: reader.optional_count("cache.max_entries", 1..=1 << 40),
        scope: scope(reader, upstream),
        key_secret: reader.secret("cache.key_secret"),
        extra_fields: extra_fields.unwrap_or_default().into_iter().collect(),
        key_headers: key_headers.unwrap_or_default(),
        same_models: same_models.unwrap_or_default().into_iter().collect(),
        derive_dimensions: reader.switch("cache.derive_dimensions"),
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

fn scope(reader: &mut Reader, upstream: &UpstreamConfig) -> Scope {
    let word = |scope: Scope| (scope.name(), Some(scope));
    let words = [word(Scope::Credential), word(Scope::Proxy), word(Scope::Shared), ("auto", None)];
    // If vecho pays for all callers, they may share entries; otherwise each credential has its own.
    let keyed = upstream.api_key.is_some() || upstream.target == UpstreamTarget::Mock;
    let usual = if keyed { Scope::Proxy } else { Scope::Credential };
    let scope = reader.choice("cache.scope", &words).unwrap_or(usual);
    reader.show("cache.scope", scope.name());
    scope
}

pub(super) fn auth(reader: &mut Reader) -> AuthConfig {
    let credential_headers = reader.list("auth.credential_headers", header_name);
    if credential_headers.as_ref().is_some_and(Vec::is_empty) {
        reader.fault("auth.credential_headers", "must name at least one header");
    }
    let identities = [CallerIdentity::Header, CallerIdentity::Token].map(|identity| (identity.name(), identity));
    AuthConfig {
        vouch_ttl: reader.duration("auth.vouch_ttl", &ANY_LENGTH),
        identity: reader.choice("auth.identity", &identities),
        credential_headers: credential_headers.unwrap_or_default(),
    }
}
