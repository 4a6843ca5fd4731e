//! The outcome of a request.

use std::sync::Arc;

use http::HeaderMap;

use super::SourceCounts;
use crate::cache::reply_cache::Validity;
use crate::upstream::{Failure, UpstreamReply};
use crate::wire::{Bypass, Rendering};

/// Outcome of a request.
pub enum FlowOutcome {
    /// Vectors for every input.
    Answer(Box<Answer>),
    /// An error of the upstream, or one of our own if there was none to pass on.
    Refused(Arc<Failure>),
    /// An answer that failed validation but was exactly what this caller asked for. It is passed on unchanged.
    InvalidAnswer(Box<UpstreamReply>),
    /// Not handled here: the original request must be forwarded unchanged.
    PassThrough(Bypass),
    /// `only-if-cached` was set, and some inputs were not cached.
    NotCached,
}

/// A request's vectors, ready to be written.
pub struct Answer {
    /// The body.
    pub rendering: Rendering,
    /// Its inputs by source, and its tokens.
    pub source_counts: SourceCounts,
    /// Headers of the call that was made for this request.
    pub call_headers: Option<HeaderMap>,
    /// Conditions under which the finished body stays valid, if it is a full hit.
    pub validity: Option<Validity>,
    /// Holds the memory reservation of the vectors until they are written.
    pub reservation: Arc<dyn Send + Sync>,
    /// Reason why the upstream counts as unavailable, if fallback vectors are part of the answer.
    pub fallback: Option<String>,
}
