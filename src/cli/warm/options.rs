//! Options of `vecho warm`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::chunk::ChunkSize;
use crate::cli::moving::CommandError;

/// Command line options of `vecho warm`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct WarmOptions {
    /// Files with one input per line: a JSON string, a token array, or an object with `text` or `input`; files named
    /// .json, .jsonl and .ndjson hold JSON, files named .txt plain text; in others the first line decides; - for standard
    /// input
    #[arg(required = true, value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
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
    // Options after these would be under the same headings.
    #[command(flatten, next_help_heading = "Input")]
    pub(super) reading: ReadingOptions,
    #[command(flatten, next_help_heading = "Batch API (with --batch-api)")]
    pub(super) batch_api: BatchApiOptions,
}

/// Options that say how the files are read.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(super) struct ReadingOptions {
    /// Read each line as plain text, also if it looks like JSON
    #[arg(long, conflicts_with = "chunk")]
    pub(super) text: bool,
    /// Read each file as one document, divided into chunks of this number of tokens (`cl100k_base`)
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) chunk: Option<u32>,
    /// Tokens that a chunk shares with the chunk before it
    #[arg(long, value_name = "TOKENS", default_value_t = 0, requires = "chunk")]
    pub(super) overlap: u32,
}

/// Options of the Batch API.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct BatchApiOptions {
    /// Send what is not cached through the Batch API of the upstream, at half the price and within a day
    #[arg(long)]
    pub(super) batch_api: bool,
    /// File with the state of the job; by default FILE.batch-state
    #[arg(long, value_name = "FILE", requires = "batch_api")]
    pub(super) state: Option<PathBuf>,
    /// Send without asking
    #[arg(long, requires = "batch_api")]
    pub(super) yes: bool,
    /// Send with --yes although the cache cannot hold all vectors
    #[arg(long, requires = "yes")]
    pub(super) beyond_capacity: bool,
    /// Time between two requests for the state of a batch
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = poll_interval, requires = "batch_api")]
    pub(super) poll: Duration,
    /// Send inputs again that failed in an earlier job of this state file
    #[arg(long, requires = "batch_api")]
    pub(super) retry_failed: bool,
    /// Keep the uploaded files at the service
    #[arg(long, requires = "batch_api")]
    pub(super) keep_files: bool,
    /// Maximum number of requests per batch
    #[arg(long, value_name = "NUMBER", default_value_t = 50_000, requires = "batch_api",
          value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub(super) batch_requests: u32,
    /// Maximum number of tokens per batch, for an account with a low limit of enqueued tokens
    #[arg(long, value_name = "NUMBER", requires = "batch_api", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) batch_tokens: Option<u64>,
    /// Model of the Batch API, if its name differs, such as a deployment of Azure
    #[arg(long, value_name = "MODEL", requires = "batch_api")]
    pub(super) batch_model: Option<String>,
    /// Path and query that applications request, such as those of an Azure deployment
    #[arg(long, value_name = "PATH", default_value = "/v1/embeddings", requires = "batch_api")]
    pub(super) path: String,
}

impl ReadingOptions {
    /// Returns the size of chunks, if the files are documents.
    pub(super) fn chunk_size(&self) -> Result<Option<ChunkSize>, CommandError> {
        let Some(tokens) = self.chunk else { return Ok(None) };
        if self.overlap >= tokens {
            return Err("--overlap must be smaller than --chunk".to_owned());
        }
        Ok(Some(ChunkSize { tokens: tokens as usize, overlap: self.overlap as usize }))
    }
}

/// Parses a time in the format of configuration keys.
fn poll_interval(text: &str) -> Result<Duration, String> {
    crate::config::parse_duration(text)
        .filter(|time| *time >= Duration::from_millis(1))
        .ok_or_else(|| "it is not a time of at least 1ms, such as \"30s\" or \"5m\"".to_owned())
}
