//! Errors of any type, and their causes.

use std::error::Error;

/// Any error.
pub type BoxError = Box<dyn Error + Send + Sync>;
