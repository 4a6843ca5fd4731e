//! A warning with its remedy.

use std::fmt;

/// A valid setting or a fact of the machine that may be unintended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// The part of the set-up that it concerns, in one word.
    pub subject: &'static str,
    /// The observation. Never contains a secret.
    pub message: String,
    /// An action of the reader, as a clause that begins with a verb.
    pub remedy: String,
}

impl Advice {
    pub(super) fn new(subject: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { subject, message: message.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.message, self.remedy)
    }
}
