//! Options of `vecho warm`.

use std::path::PathBuf;

use clap::Args;

/// Command line options of `vecho warm`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct WarmOptions {
    /// File with one input per line: a JSON string, a token array, or an object with `text` or `input`; if the first
    /// line is not JSON, each line is plain text; - for standard input
    pub(super) file: PathBuf,
    /// Model of the requests
    #[arg(long)]
    pub(super) model: String,
    /// Dimensions of the vectors; by default those of the model
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(super) dimensions: Option<u32>,
    /// Namespace of the cache, as in the header x-vecho-namespace
    #[arg(long)]
    pub(super) namespace: Option<String>,
    /// Maximum number of inputs per request
    #[arg(long, value_name = "NUMBER", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=2_048))]
    pub(super) batch: u32,
    /// Maximum number of requests in flight
    #[arg(long, value_name = "NUMBER", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(super) concurrency: u32,
    /// Hide the progress display
    #[arg(long)]
    pub(super) quiet: bool,
}
