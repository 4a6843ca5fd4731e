//! Claims of a bearer token that name its owner, and its expiry.
//!
//! The signature is not verified, because vecho has no keys of issuers. So the claims say only who the owner would be,
//! and the upstream must accept the token before anything of the owner is served. Tokens that could be read in two
//! ways name no owner, because the upstream might read another one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

use base64_simd::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::key::{KeyBuilder, Tag};

/// Maximum length of a token that is parsed.
const MAX_TOKEN_BYTES: usize = 16 << 10;

/// Claims that name an owner and its permissions, in the order of the hash. `oid` and `tid` are Entra's names for a
/// principal and its tenant. `appid`, `azp` and `client_id` name the application that acts for the owner. Claims that
/// differ from token to token, or from pod to pod (`jti`, `uti`, `kubernetes.io`), are left out.
const NAMING: [&str; 11] = ["iss", "tid", "sub", "oid", "appid", "azp", "client_id", "aud", "scp", "scope", "roles"];

/// Claims of tokens that name no single owner (an actor, RFC 8693), or prove nothing by themselves (RFC 7800).
const REFUSED: [&str; 2] = ["act", "cnf"];

/// Claims that name the owner of a token, and its expiry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenClaims {
    owner: Vec<(&'static str, ClaimValue)>,
    /// Time in milliseconds since the epoch from which on the token is invalid.
    pub expires_ms: u64,
}

/// Value of a claim that names an owner.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ClaimValue {
    Text(String),
    Texts(Vec<String>),
}

/// Members of a JSON object without duplicates.
struct UniqueMembers(HashMap<String, Value>);

impl TokenClaims {
    /// Reads the claims of the bearer token in these headers. Returns `None` if there is none, if it is no signed JWT,
    /// or if its claims name no owner or no expiry.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        Self::read(bearer(headers)?)
    }

    /// Returns true if these headers have a bearer token that may be a JWT. It costs little, unlike reading the token.
    pub fn may_be_in(headers: &HeaderMap) -> bool {
        bearer(headers).is_some_and(may_be_jwt)
    }

    /// Reads the claims of a token.
    pub fn read(token: &str) -> Option<Self> {
        if !may_be_jwt(token) {
            return None;
        }
        let mut parts = token.split('.');
        // A signed JWT has three parts (RFC 7515, section 7.1), an encrypted one five.
        let (head, payload, signature, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else {
            return None;
        };
        let is_signed = !signature.is_empty() && is_signed(&members(head)?);
        if is_signed { Self::of_payload(members(payload)?) } else { None }
    }

    fn of_payload(UniqueMembers(mut members): UniqueMembers) -> Option<Self> {
        if REFUSED.iter().any(|name| members.contains_key(*name)) {
            return None;
        }
        let expires_ms = expiry_ms(members.get("exp")?)?;
        let mut owner = Vec::with_capacity(NAMING.len());
        for name in NAMING {
            if let Some(value) = members.remove(name) {
                owner.push((name, ClaimValue::of(value)?));
            }
        }
        let names = |wanted: &str| {
            owner
                .iter()
                .any(|(name, value)| *name == wanted && matches!(value, ClaimValue::Text(text) if !text.is_empty()))
        };
        // Without these claims, tokens of different owners would have the same hash.
        let names_one = names("iss") && (names("sub") || names("oid"));
        names_one.then_some(Self { owner, expires_ms })
    }

    /// Adds the claims to a key. Names and values have tags and lengths, so different claims never add the same bytes.
    pub fn join(&self, key: &mut KeyBuilder<'_>) {
        for (name, value) in &self.owner {
            key.part(Tag::Claim, name.as_bytes());
            match value {
                ClaimValue::Text(text) => {
                    key.part(Tag::ClaimText, text.as_bytes());
                }
                ClaimValue::Texts(texts) => {
                    key.part(Tag::ClaimTexts, &(texts.len() as u64).to_le_bytes());
                    for text in texts {
                        key.part(Tag::ClaimText, text.as_bytes());
                    }
                }
            }
        }
    }
}

impl ClaimValue {
    fn of(value: Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Self::Text(text)),
            Value::Array(items) => items
                .into_iter()
                .map(|item| if let Value::String(text) = item { Some(text) } else { None })
                .collect::<Option<_>>()
                .map(Self::Texts),
            _ => None,
        }
    }
}

/// Returns the token of the only `authorization` header, if it has the scheme Bearer.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else {
        return None;
    };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Returns true for tokens of a usual length that begin as a JSON object does in base64.
fn may_be_jwt(token: &str) -> bool {
    token.len() <= MAX_TOKEN_BYTES && token.starts_with('e')
}

/// Decodes a part of a token. Returns `None` unless it is one JSON object without duplicates.
fn members(part: &str) -> Option<UniqueMembers> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode_to_vec(part).ok()?).ok()
}

/// Returns true if the head of a token names a signature, and no extension that changes its meaning.
fn is_signed(UniqueMembers(head): &UniqueMembers) -> bool {
    let is_named = matches!(head.get("alg"), Some(Value::String(name)) if !name.eq_ignore_ascii_case("none"));
    // A critical extension (RFC 7515, section 4.1.11) could encode the payload in another way.
    is_named && !head.contains_key("crit")
}

/// Converts `exp`, seconds since the epoch that may have a fraction, to milliseconds.
fn expiry_ms(value: &Value) -> Option<u64> {
    let millis = value.as_f64()? * 1_000.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range is checked, and a time later than all others is the largest number"
    )]
    let expires_ms = (millis >= 0.0).then_some(millis as u64);
    expires_ms
}

impl<'de> Deserialize<'de> for UniqueMembers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ClaimsVisitor;

        impl<'de> Visitor<'de> for ClaimsVisitor {
            type Value = UniqueMembers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object without duplicates")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UniqueMembers, A::Error> {
                let mut members = HashMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    match members.entry(name) {
                        Entry::Occupied(_) => return Err(A::Error::custom("a member occurs twice")),
                        Entry::Vacant(free) => free.insert(map.next_value()?),
                    };
                }
                Ok(UniqueMembers(members))
            }
        }

        deserializer.deserialize_map(ClaimsVisitor)
    }
}

#[cfg(test)]
#[path = "token_claims_tests.rs"]
pub(super) mod tests;
