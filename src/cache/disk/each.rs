//! Iteration over all entries of a store, for exports.

use std::io;
use std::ops::ControlFlow;

use super::DiskStore;
use crate::key::Key;

/// Reason why the iteration ended early.
enum EarlyEnd {
    /// The visitor asked to stop.
    Enough,
    Failed(io::Error),
}

impl From<io::Error> for EarlyEnd {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl DiskStore {
    /// Passes every entry to `visit` until it breaks. Also breaks, with a warning, if the disk cannot be read.
    pub fn each(&self, visit: &mut dyn FnMut(&Key, &[u8]) -> ControlFlow<()>) -> ControlFlow<()> {
        let seen = self.for_each(|key, _, bytes| match visit(key, &bytes) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(EarlyEnd::Enough),
        });
        if let Err(EarlyEnd::Failed(error)) = &seen {
            tracing::warn!(%error, "the disk tier cannot be read completely");
        }
        if seen.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}
