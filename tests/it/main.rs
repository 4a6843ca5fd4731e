//! The integration tests: one binary, a file per stage, on one harness.

mod answers;
mod batches;
mod bypass;
mod batching;
mod breaker;
mod cli;
mod clients;
mod coalescing;
mod config;
mod documentation;
mod controls;
mod drift;
mod encodings;
mod failures;
mod fallback;
mod harness;
mod keys;
mod lies;
mod merging;
mod metrics;
mod process;
mod real_model;
mod scopes;
mod serve;
mod the_stub;
mod usage;
