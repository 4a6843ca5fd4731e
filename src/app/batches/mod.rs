//! Reads the files of an OpenAI batch job (its requests and their answers) as records.
//!
//! A vector of a job gets the same key as a live request for its text. The same functions as for live requests
//! therefore read keys and answers, with the same checks.

mod files;
mod keys;
mod lengths;
mod lines;
mod reading;

pub use files::{BatchCounts, BatchFiles, ReportLine};
pub use keys::{BatchSample, KeySettings};
