//! Going through all entries, for whoever takes them elsewhere.

use std::io;
use std::ops::ControlFlow;

use super::DiskStore;
use crate::key::Key;

/// Why going through the entries ended early.
enum End {
    /// The visitor has seen enough.
    Enough,
    Failed(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl DiskStore {
    /// Shows every entry until `visit` breaks off; also breaks off where the disk cannot be read.
    pub fn each(&self, visit: &mut dyn FnMut(&Key, &[u8]) -> ControlFlow<()>) -> ControlFlow<()> {
        let seen = self.for_each(|key, _, bytes| match visit(key, &bytes) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(End::Enough),
        });
        if let Err(End::Failed(error)) = &seen {
            tracing::warn!(%error, "the disk tier cannot be read to its end");
        }
        if seen.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}
