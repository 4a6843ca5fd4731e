//! The integration tests: one binary, a file per stage.

mod cli;
mod config;
mod metrics;
mod serve;
