//! `vecho warm`: caches the vectors of texts in a file through the public port, like any application.

mod fill;
mod options;
mod read;
mod send;
mod temporary;

pub(super) use fill::warm;
pub use options::WarmOptions;
