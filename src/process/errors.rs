//! Errors of any type, and their causes.

use std::error::Error;

/// Any error.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Returns an error and its chain of causes in one line.
pub fn cause_of(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// Returns the last cause in the chain, which is the most specific one.
pub fn root_cause_of(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
