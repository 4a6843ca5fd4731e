//! The integration tests: one binary, a file per stage.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on must panic")]

mod cli;
mod config;
