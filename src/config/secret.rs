//! A value that is never printed.

use std::fmt;
use std::sync::Arc;

/// A key, token or password. `Debug` shows a placeholder; `Display` and serialization do not exist.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Wraps a secret value.
    pub fn new(value: &str) -> Self {
        Self(Arc::from(value))
    }

    /// Returns the value, for code that sends or hashes it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}
