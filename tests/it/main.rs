//! The integration tests: one binary, a file per stage, on one harness.

mod cli;
mod clients;
mod config;
mod harness;
mod layout;
mod memory;
mod metrics;
mod parsing;
mod process;
mod randomised;
mod real_model;
mod serve;
mod the_stub;
