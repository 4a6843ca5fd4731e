//! The integration tests: one binary, a file per stage, on one harness.

mod clients;
mod harness;
mod process;
mod real_model;
mod the_stub;
