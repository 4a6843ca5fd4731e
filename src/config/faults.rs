//! Faults of a configuration: all of them at once, each with its key and the origin of the value.

use std::error::Error;
use std::fmt;

use super::origin::Origin;

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key, or the unknown name.
    pub key: String,
    /// Origin of the value.
    pub origin: Origin,
    /// Description of the fault. Never contains a secret.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.key, self.origin, self.message)
    }
}

/// All faults; printed one per line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl Faults {
    pub(super) fn add(&mut self, key: &str, origin: &Origin, message: impl Into<String>) {
        self.0.push(Fault { key: key.to_owned(), origin: origin.clone(), message: message.into() });
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, fault) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { "\n" };
            write!(f, "{separator}{fault}")?;
        }
        Ok(())
    }
}

impl Error for Faults {}
