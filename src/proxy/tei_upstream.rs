//! Remembers that an upstream ranks by itself but has no embeddings for TEI's form.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use http::StatusCode;

/// Requests in TEI's form are forwarded at once for this long after the upstream refused their embeddings.
const FORWARD_FOR_MS: u64 = 5 * 60 * 1000;

/// State of the upstream for requests in TEI's form that name no model.
#[derive(Debug, Default)]
pub(super) struct TeiUpstream {
    /// True once a request was ranked. From then on, a refusal is the fault of its request.
    has_ranked: AtomicBool,
    forward_until_ms: AtomicU64,
}

impl TeiUpstream {
    /// Returns true if the request must be forwarded without a call for its embeddings.
    pub(super) fn must_forward(&self, now_ms: u64) -> bool {
        now_ms < self.forward_until_ms.load(Ordering::Relaxed)
    }

    /// Notes that a request was ranked.
    pub(super) fn ranked(&self) {
        self.has_ranked.store(true, Ordering::Relaxed);
    }

    /// Notes that the embeddings of a request were answered with this error.
    pub(super) fn refused(&self, status: StatusCode, now_ms: u64) {
        let has_no_embeddings = matches!(status, StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST);
        if has_no_embeddings && !self.has_ranked.load(Ordering::Relaxed) {
            self.forward_until_ms.store(now_ms.saturating_add(FORWARD_FOR_MS), Ordering::Relaxed);
        }
    }
}
