//! The end of a connection.

use super::limits::Fault;

/// Reason why a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// It ended by itself, on request, or by an upgrade.
    Finished(hyper::Result<()>),
    /// The peer was at fault.
    Faulted(Fault),
    /// The shutdown cut it before its work was finished.
    Cut,
}
