//! A response that is ready to be sent, with what the metrics need of it.

use http::Response;

use super::ReplyBody;
use super::admission::Admission;
use crate::observe::metrics::{Outcome, RequestUsage};

/// A finished response with its outcome for the metrics.
pub(super) struct Finished {
    /// The response for the client.
    pub response: Response<ReplyBody>,
    /// Outcome for the metrics.
    pub outcome: Outcome,
    /// Usage labels, if the request was parsed.
    pub subject: Option<RequestUsage>,
    /// True if the headers come from an upstream response to exactly this request.
    pub is_upstreams: bool,
}

impl Finished {
    pub(super) const fn new(response: Response<ReplyBody>, outcome: Outcome) -> Self {
        Self { response, outcome, subject: None, is_upstreams: false }
    }

    pub(super) fn about(self, subject: RequestUsage) -> Self {
        Self { subject: Some(subject), ..self }
    }

    /// Marks the headers as those of an upstream response to exactly this request.
    pub(super) fn of_upstream(self) -> Self {
        Self { is_upstreams: true, ..self }
    }

    /// Holds `admission` until the body is sent.
    pub(super) fn admitted(mut self, admission: Admission) -> Self {
        self.response.body_mut().hold(admission);
        self
    }
}
