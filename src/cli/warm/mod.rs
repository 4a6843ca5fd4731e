//! `vecho warm`: caches the vectors of texts in files through the public port, like any application.

mod batch_api;
mod chunk;
mod fill;
mod line;
mod options;
mod read;
mod retry;
mod send;
mod source;
mod temporary;

pub(super) use fill::warm;
pub use options::WarmOptions;
