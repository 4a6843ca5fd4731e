//! Options of `vecho doctor`.

use clap::Args;

/// Command line options of `vecho doctor`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct DoctorOptions {
    /// Make one embeddings call to the upstream, which it bills; without it no check costs anything
    #[arg(long)]
    pub(super) call: bool,
    /// Model of that call
    #[arg(long, requires = "call", default_value = "text-embedding-3-small")]
    pub(super) model: String,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}
