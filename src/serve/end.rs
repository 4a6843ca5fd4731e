//! The end of a connection.

use super::limits::PeerFault;

/// Reason why a connection ended.
#[derive(Debug)]
pub(super) enum ConnectionEnd {
    /// It ended by itself, on request, or by an upgrade.
    Finished(hyper::Result<()>),
    /// The peer was at fault.
    Faulted(PeerFault),
    /// The shutdown cut it before its work was finished.
    Cut,
}
