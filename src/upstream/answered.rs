//! The answer to a call.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;

use crate::observe::traces::TraceContext;
use crate::vector::Vector;
use crate::wire::Members;

/// Answer to a call.
#[derive(Debug)]
pub struct Answered {
    /// One vector for each input of the body.
    pub(super) vectors: Vec<Vector>,
    /// Tokens of the whole call.
    pub(super) prompt_tokens: Option<u64>,
    /// The call that brought it.
    pub(super) call: Arc<CallInfo>,
    /// Duration of the successful attempt.
    pub(super) took: Duration,
}

/// Contents of one call's answer in addition to its vectors.
#[derive(Debug)]
pub struct CallInfo {
    /// Its headers.
    pub headers: HeaderMap,
    /// Model that answered, if the answer names it.
    pub model: Option<String>,
    /// Tokens of the whole call.
    pub prompt_tokens: Option<u64>,
    /// Further scalar members of its answer.
    pub members: Members,
    /// Number of inputs that it carried, including repetitions.
    pub inputs: usize,
    /// True if it carried an input more than once, as its caller wrote it.
    pub has_repetitions: bool,
    /// Its trace context.
    pub trace: TraceContext,
    /// Name of the target that answered, if there are several.
    pub target: Option<Arc<str>>,
}
