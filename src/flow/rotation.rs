//! Detects bearer tokens that are renewed for the same owner. In scope `credential` each new token begins
//! with an empty cache.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use base64_simd::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use serde::Deserialize;
use serde_json::Value;

use crate::key::{Key, KeyBuilder, Tag};

/// Number of different tokens of one owner from which on they count as rotating.
const ROTATING_TOKENS: usize = 3;
/// Maximum number of owners that are watched. When it is reached, all are forgotten.
const MAX_OWNERS: usize = 256;
/// Maximum length of a token that is parsed.
const MAX_TOKEN_BYTES: usize = 16 << 10;
/// Prefix of Google's access tokens. They live for an hour at most and do not name their owner.
const GOOGLE: &str = "ya29.";

/// Watches the bearer tokens of requests that miss. Stores hashes only.
#[derive(Debug, Default)]
pub struct Rotation(Mutex<HashMap<Key, Vec<Key>>>);

/// Claims of a JWT that stay the same when it is renewed.
#[derive(Deserialize)]
struct TokenClaims {
    iss: Option<String>,
    sub: Option<String>,
    appid: Option<String>,
    azp: Option<String>,
    aud: Option<Value>,
}

impl Rotation {
    /// Notes the bearer token of a request. Returns true once for each owner with rotating tokens.
    pub(super) fn note(&self, headers: &HeaderMap) -> bool {
        let Some((owner, token)) = headers.get(AUTHORIZATION).and_then(|value| identify(value.to_str().ok()?)) else {
            return false;
        };
        let mut owners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if owners.len() >= MAX_OWNERS && !owners.contains_key(&owner) {
            // Owners that are still active return with their next tokens, so at most a warning comes later.
            owners.clear();
        }
        let tokens = owners.entry(owner).or_default();
        // A reported owner is not reported again, so its list needs no more tokens.
        if tokens.len() >= ROTATING_TOKENS || tokens.contains(&token) {
            return false;
        }
        tokens.push(token);
        tokens.len() == ROTATING_TOKENS
    }
}

/// Returns the hashes of a token's owner and of the token itself, or `None` if the token names no owner.
fn identify(authorization: &str) -> Option<(Key, Key)> {
    let (scheme, token) = authorization.split_once(' ')?;
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.len() > MAX_TOKEN_BYTES {
        return None;
    }
    let token_key = || KeyBuilder::new(None).part(Tag::Control, token.as_bytes()).finish();
    // These tokens name no owner, so all of them count as tokens of one owner.
    if token.starts_with(GOOGLE) {
        return Some((KeyBuilder::new(None).part(Tag::Control, GOOGLE.as_bytes()).finish(), token_key()));
    }
    let mut parts = token.split('.');
    // A JWT has three parts (RFC 7515, section 7.1). Other tokens name no owner.
    let (_, payload, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else {
        return None;
    };
    // RFC 7515 omits the padding; a token with padding is read as well.
    let payload = URL_SAFE_NO_PAD.decode_to_vec(payload.trim_end_matches('=')).ok()?;
    // The signature is not verified, because a forged token can cause a warning at most.
    let claims: TokenClaims = serde_json::from_slice(&payload).ok()?;
    // Without these claims, tokens of different owners would have the same hash.
    if claims.iss.is_none() || (claims.sub.is_none() && claims.appid.is_none()) {
        return None;
    }
    let audience = claims.aud.map(|audience| audience.to_string());
    let mut owner = KeyBuilder::new(None);
    for claim in [claims.iss, claims.sub, claims.appid, claims.azp, audience] {
        owner.part(Tag::Control, claim.unwrap_or_default().as_bytes());
    }
    Some((owner.finish(), token_key()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn note_token(rotation: &Rotation, token: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().expect("a header"));
        rotation.note(&headers)
    }

    fn jwt(subject: &str, expires: u64) -> String {
        let claims = json!({"iss": "https://login/x", "sub": subject, "aud": ["a"], "exp": expires}).to_string();
        format!("e30.{}.signature", URL_SAFE_NO_PAD.encode_to_string(claims))
    }

    #[test]
    fn the_third_token_of_one_owner_is_reported_once() {
        let rotation = Rotation::default();
        let reported: Vec<bool> = [1, 1, 2, 2, 3, 3, 4, 5].map(|hour| note_token(&rotation, &jwt("me", hour))).into();
        assert_eq!(reported, [false, false, false, false, true, false, false, false]);
        let google: Vec<bool> =
            ["a", "b", "c", "d"].map(|token| note_token(&rotation, &format!("ya29.{token}"))).into();
        assert_eq!(google, [false, false, true, false]);
    }

    #[test]
    fn tokens_of_different_owners_and_plain_keys_do_not_rotate() {
        let rotation = Rotation::default();
        for number in 0..1_000 {
            assert!(!note_token(&rotation, &jwt(&number.to_string(), 1)), "each has an owner of its own");
            assert!(!note_token(&rotation, &format!("sk-{number}")));
            assert!(!note_token(&rotation, &format!("e30.{number}.x")) && !note_token(&rotation, "a.b.c.d"));
        }
        assert!(rotation.0.lock().expect("nobody panics").len() <= MAX_OWNERS);
        assert!(!rotation.note(&HeaderMap::new()));
    }
}
