//! Words for the values of keys that take one of a few.

use super::checked::{CallerIdentity, FallbackMode, Scope};

impl FallbackMode {
    /// Returns the value of `fallback.mode`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Stale => "stale",
            Self::Mock => "mock",
        }
    }
}

impl Scope {
    /// Returns the value of `cache.scope`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Credential => "credential",
            Self::Proxy => "proxy",
            Self::Shared => "shared",
        }
    }
}

impl CallerIdentity {
    /// Returns the value of `auth.identity`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Token => "token",
        }
    }
}
