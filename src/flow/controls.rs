//! Controls that a caller sets for one request.

use crate::config::{FallbackMode, Priority};

/// Cache controls of a request: standard `cache-control` directives, and the fallback.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Controls {
    /// Fetch even inputs that are stored.
    pub no_cache: bool,
    /// Store nothing of the answer.
    pub no_store: bool,
    /// Fail instead of fetching.
    pub only_if_cached: bool,
    /// Whether the request shares upstream calls with other requests.
    pub calls: Calls,
    /// Maximum age of a record that the caller accepts.
    pub max_age_ms: Option<u64>,
    /// Priority of the request's calls, if the caller has said so.
    pub priority: Option<Priority>,
    /// Limit of the fallback. It can only narrow the configured mode.
    pub fallback: Option<FallbackMode>,
}

/// Sharing of upstream calls between requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Calls {
    /// Equal inputs of several requests are fetched once.
    #[default]
    Shared,
    /// Each input is fetched for this request alone.
    Own,
}
