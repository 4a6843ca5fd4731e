//! Detects bearer tokens that are renewed for the same owner. In scope `credential` each new token begins
//! with an empty cache.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use http::HeaderMap;

use super::token_claims::{TokenClaims, bearer};
use crate::key::{Key, KeyBuilder, Tag};

/// Number of different tokens of one owner from which on they count as rotating.
const ROTATING_TOKENS: usize = 3;
/// Maximum number of owners that are watched. When it is reached, all are forgotten.
const MAX_OWNERS: usize = 256;
/// Prefix of Google's access tokens. They live for an hour at most and do not name their owner.
const GOOGLE: &str = "ya29.";

/// Watches the bearer tokens of requests that miss. Stores hashes only.
#[derive(Debug, Default)]
pub struct Rotation(Mutex<HashMap<Key, Vec<Key>>>);

/// Kind of a token that is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RotatingToken {
    /// Its claims name its owner.
    Jwt,
    /// It names no owner.
    Opaque,
}

impl RotatingToken {
    /// Returns the settings with which a renewed token keeps the cache.
    pub(super) const fn remedy(self) -> &'static str {
        match self {
            Self::Jwt => "auth.identity = \"token\" (or cache.scope = \"shared\")",
            Self::Opaque => "cache.scope = \"shared\"",
        }
    }
}

/// A token as it was seen in a request.
struct SeenToken {
    owner: Key,
    token: Key,
    kind: RotatingToken,
}

impl Rotation {
    /// Notes the bearer token of a request. Returns its kind once for each owner with rotating tokens.
    pub(super) fn note(&self, headers: &HeaderMap) -> Option<RotatingToken> {
        let SeenToken { owner, token, kind } = identify(headers)?;
        let mut owners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if owners.len() >= MAX_OWNERS && !owners.contains_key(&owner) {
            // Owners that are still active return with their next tokens, so at most a warning comes later.
            owners.clear();
        }
        let tokens = owners.entry(owner).or_default();
        // A reported owner is not reported again, so its list needs no more tokens.
        if tokens.len() >= ROTATING_TOKENS || tokens.contains(&token) {
            return None;
        }
        tokens.push(token);
        (tokens.len() == ROTATING_TOKENS).then_some(kind)
    }
}

/// Returns the hashes of a token's owner and of the token itself, or `None` if the token names no owner.
fn identify(headers: &HeaderMap) -> Option<SeenToken> {
    let token = bearer(headers)?;
    let mut owner = KeyBuilder::new(None);
    // These tokens name no owner, so all of them count as tokens of one owner.
    let kind = if token.starts_with(GOOGLE) {
        owner.part(Tag::Control, GOOGLE.as_bytes());
        RotatingToken::Opaque
    } else {
        // The signature is not verified, because a forged token can cause a warning at most.
        TokenClaims::read(token)?.join(&mut owner);
        RotatingToken::Jwt
    };
    let token = KeyBuilder::new(None).part(Tag::Control, token.as_bytes()).finish();
    Some(SeenToken { owner: owner.finish(), token, kind })
}

#[cfg(test)]
mod tests {
    use http::header::AUTHORIZATION;
    use serde_json::json;

    use super::*;
    use crate::flow::token_claims::tests::token_of;

    fn note_token(rotation: &Rotation, token: &str) -> Option<RotatingToken> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().expect("a header"));
        rotation.note(&headers)
    }

    fn jwt(subject: &str, expires: u64) -> String {
        let claims = json!({"iss": "https://login/x", "sub": subject, "aud": ["a"], "exp": expires}).to_string();
        token_of(r#"{"alg":"RS256"}"#, &claims)
    }

    #[test]
    fn the_third_token_of_one_owner_is_reported_once() {
        let rotation = Rotation::default();
        let reported = [1, 1, 2, 2, 3, 3, 4, 5].map(|hour| note_token(&rotation, &jwt("me", hour)));
        assert_eq!(reported, [None, None, None, None, Some(RotatingToken::Jwt), None, None, None]);
        let google = ["a", "b", "c", "d"].map(|token| note_token(&rotation, &format!("ya29.{token}")));
        assert_eq!(google, [None, None, Some(RotatingToken::Opaque), None]);
    }

    #[test]
    fn tokens_of_different_owners_and_plain_keys_do_not_rotate() {
        let rotation = Rotation::default();
        for number in 0..1_000 {
            assert_eq!(note_token(&rotation, &jwt(&number.to_string(), 1)), None, "each has an owner of its own");
            for token in [format!("sk-{number}"), format!("e30.{number}.x"), "a.b.c.d".to_owned()] {
                assert_eq!(note_token(&rotation, &token), None);
            }
        }
        assert!(rotation.0.lock().expect("nobody panics").len() <= MAX_OWNERS);
        assert_eq!(rotation.note(&HeaderMap::new()), None);
    }
}
