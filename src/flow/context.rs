//! The facts of one request that stay the same while it is answered.

use std::sync::Arc;

use tokio::time::Instant;

use super::Controls;
use crate::cache::purges::Generation;
use crate::config::{Config, Scope};
use crate::key::Key;
use crate::learned::{Acceptance, AcceptedCredential, SpaceState, TokenOwner};
use crate::observe::traces::TraceContext;

/// Facts that are fixed when the body of a request has been read. Nothing reads them a second time: there is one
/// configuration, one deadline and one time for all steps.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// The configuration in force when the request arrived.
    pub config: Arc<Config>,
    /// Time at which the caller stops waiting.
    pub deadline: Instant,
    /// Wall-clock time, for the age of stored vectors.
    pub now_ms: u64,
    /// The caller's cache controls.
    pub controls: Controls,
    /// The trace that the request belongs to.
    pub trace: TraceContext,
}

/// The space of a request, with its counts before the look-up.
#[derive(Clone)]
pub(super) struct SpaceSnapshot {
    /// Its key, for this caller's scope.
    pub(super) key: Key,
    /// Its current state.
    pub(super) space_state: Arc<SpaceState>,
    /// Count of replaced records.
    pub(super) replacements: u64,
    /// Count of purges and imports.
    pub(super) generation: Generation,
}

/// The caller of a request as its fetches need it.
#[derive(Clone, Copy, Debug)]
pub(super) struct CallerKeys {
    /// Hash of the credential that is sent to the upstream.
    pub(super) credential: Key,
    /// Hash of the credential that the caller sent.
    pub(super) caller: Key,
    /// Credential that the upstream must have accepted before stored vectors are served, if the configuration demands
    /// it. A success proves it.
    pub(super) accepted_credential: Option<AcceptedCredential>,
    /// Owner of the bearer token, if its claims name the caller.
    pub(super) owner: Option<TokenOwner>,
}

/// Longest time for which a token stays accepted, so one that never expires must prove itself again.
const MAX_TOKEN_MS: u64 = 24 * 60 * 60 * 1_000;

impl CallerKeys {
    /// Returns the acceptance that a successful call at this time proves. A token stays accepted until it expires,
    /// because it would only be renewed by then. In the shared scope it reads what others fetched, so each credential
    /// must prove itself again after `auth.vouch_ttl`.
    pub(super) fn acceptance(&self, config: &Config, now_ms: u64) -> Acceptance {
        let vouch_ms = u64::try_from(config.auth.vouch_ttl.as_millis()).unwrap_or(u64::MAX);
        let most_ms = match self.owner {
            Some(_) if config.cache.scope != Scope::Shared => MAX_TOKEN_MS,
            _ => vouch_ms,
        };
        let expires_ms = self.owner.map_or(u64::MAX, |owner| owner.expires_ms);
        Acceptance { until_ms: now_ms.saturating_add(most_ms).min(expires_ms), owner: self.owner }
    }
}
