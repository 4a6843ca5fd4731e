//! Origin of a configuration value.

use std::fmt;
use std::path::PathBuf;

/// Origin of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The key table.
    Default,
    /// The configuration file, or the file that holds a secret.
    File(PathBuf),
    /// An environment variable.
    Env(String),
    /// A command line flag.
    Flag(&'static str),
    /// The value of another key, from which the default is derived.
    Key(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Env(name) => write!(f, "environment {name}"),
            Self::Flag(name) => f.write_str(name),
            Self::Key(name) => write!(f, "default, from {name}"),
        }
    }
}
