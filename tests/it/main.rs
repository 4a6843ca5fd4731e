//! The integration tests: one binary, a file per stage, on one harness.

mod batching;
mod breaker;
mod cli;
mod clients;
mod config;
mod failures;
mod fallback;
mod harness;
mod limits;
mod metrics;
mod passthrough;
mod process;
mod real_model;
mod serve;
mod the_stub;
mod upstream;
