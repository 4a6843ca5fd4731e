//! Reasons why there is no ranking.

use crate::proxy::finished::Finished;
use crate::proxy::reading::Unread;
use crate::wire::SimilarFault;

/// Reason why there is no ranking.
pub(super) enum Unranked {
    /// The caller's request is at fault.
    Fault(SimilarFault),
    /// There are no vectors; the response says why.
    NoVectors(Box<Finished>),
    /// A limit of vecho is reached.
    NoRoom,
    /// The model changed between two parts of the request.
    ModelChanged {
        /// Tokens that the upstream charged for the parts of both models.
        billed_tokens: u64,
    },
    /// The upstream has no embeddings for requests of this kind, as was found recently.
    NoEmbeddings,
}

impl From<SimilarFault> for Unranked {
    fn from(fault: SimilarFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Finished> for Unranked {
    fn from(finished: Finished) -> Self {
        Self::NoVectors(Box::new(finished))
    }
}

impl From<Unread> for Unranked {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::NoRoom => Self::NoRoom,
            Unread::Bypass(cause) => Self::Fault(cause.into()),
        }
    }
}
