//! Callers that the claims of their bearer token name, instead of the token itself.

use http::header::{AUTHORIZATION, HeaderMap, HeaderName};

use super::Proxy;
use crate::config::{CallerIdentity, Config};
use crate::flow::{TokenClaims, join_headers};
use crate::key::{Key, KeyBuilder, ProcessSecret};
use crate::learned::TokenOwner;
use crate::upstream::may_hold_secret;

/// A bearer token whose claims name the caller.
#[derive(Clone, Copy, Debug)]
pub struct CallerToken {
    /// Hash of the token, and of all other headers that may hold a credential. Stored nowhere but in memory.
    pub(super) credential: Key,
    /// The owner that the claims name.
    pub(super) owner: TokenOwner,
    /// True if the upstream has accepted the token.
    pub(super) is_accepted: bool,
}

impl CallerToken {
    /// Returns the token of a caller whose requests are only described, not answered.
    pub fn described(config: &Config, headers: &HeaderMap) -> Option<Self> {
        let owner = is_read(config, headers).then(|| owner(config, headers)).flatten()?;
        Some(Self { credential: owner.key, owner, is_accepted: false })
    }
}

impl Proxy {
    /// Returns the caller's token, if its claims name the caller.
    pub(super) fn token(&self, config: &Config, headers: &HeaderMap) -> Option<CallerToken> {
        if !is_read(config, headers) {
            return None;
        }
        let credential = credential(config, &self.answer_secret, headers);
        // The owner of an accepted token is known, so only a new token is parsed.
        let known = self.flow.accepted_credentials.owner(&credential, self.flow.clock.now_ms());
        let owner = known.or_else(|| owner(config, headers))?;
        Some(CallerToken { credential, owner, is_accepted: known.is_some() })
    }

    /// Returns the owner of the caller's token if the upstream has accepted it. Claims alone name nobody, because
    /// anyone can write them.
    pub(super) fn accepted_owner(&self, config: &Config, headers: &HeaderMap) -> Option<Key> {
        if !is_read(config, headers) {
            return None;
        }
        let credential = credential(config, &self.answer_secret, headers);
        self.flow.accepted_credentials.owner(&credential, self.flow.clock.now_ms()).map(|owner| owner.key)
    }
}

/// Returns true if the claims of the request's token may name its caller.
fn is_read(config: &Config, headers: &HeaderMap) -> bool {
    config.auth.identity == CallerIdentity::Token && TokenClaims::may_be_in(headers)
}

/// Returns the hash of everything that the upstream may judge a caller by. Only this process compares it, so it is
/// keyed by a secret of the process.
fn credential(config: &Config, secret: &ProcessSecret, headers: &HeaderMap) -> Key {
    let mut key = KeyBuilder::of_process(secret);
    join_headers(&mut key, &config.auth.credential_headers, headers);
    join_headers(&mut key, &config.cache.key_headers, headers);
    join_headers(&mut key, &other_secrets(config, headers), headers);
    key.finish()
}

/// Returns the owner that the claims of the token name. All other headers that may hold a credential join it: a service
/// may accept a request for one of them, and then its answer proves nothing about the token.
fn owner(config: &Config, headers: &HeaderMap) -> Option<TokenOwner> {
    let claims = TokenClaims::of(headers)?;
    let mut key = KeyBuilder::new(config.cache.key_secret.as_ref());
    claims.join(&mut key);
    let named: Vec<HeaderName> =
        config.auth.credential_headers.iter().filter(|name| **name != AUTHORIZATION).cloned().collect();
    join_headers(&mut key, &named, headers);
    join_headers(&mut key, &other_secrets(config, headers), headers);
    Some(TokenOwner { key: key.finish(), expires_ms: claims.expires_ms })
}

/// Returns the headers that may hold a credential and that `auth.credential_headers` does not name, in a fixed order.
fn other_secrets(config: &Config, headers: &HeaderMap) -> Vec<HeaderName> {
    let is_other = |name: &&HeaderName| may_hold_secret(name) && !config.auth.credential_headers.contains(name);
    let mut names: Vec<HeaderName> = headers.keys().filter(is_other).cloned().collect();
    names.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
    names
}
