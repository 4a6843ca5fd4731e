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
mod logging;
mod metrics;
mod ops;
mod passthrough;
mod process;
mod real_model;
mod reloading;
mod serve;
mod stopping;
mod the_stub;
mod tls;
mod upstream;
