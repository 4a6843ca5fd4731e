//! The integration tests: one binary, a file per stage, on one harness.

mod answers;
mod batches;
mod bypass;
mod cli;
mod clients;
mod coalescing;
mod config;
mod documentation;
mod controls;
mod drift;
mod encodings;
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
