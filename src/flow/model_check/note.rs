//! Requests show which spaces are in use.

use std::sync::Arc;

use super::canary;
use crate::config::UpstreamTarget;
use crate::flow::request::Request;
use crate::flow::watched::{MAX_SPACES, SpaceInUse};
use crate::upstream::carries_credential;

const TOO_MANY: &str = "too many spaces are in use: a change of the model stays unnoticed in some of them";

impl Request<'_> {
    /// Notes that vectors of this space were served. The space is watched if its model can be asked without the
    /// credential of a caller, who has not agreed to further calls.
    pub(in crate::flow) fn note_use(&self) {
        let context = self.context();
        let config = &*context.config;
        if config.drift.every.is_none() || !self.space.space_state.begin_watch() {
            return;
        }
        let headers = self.job.origin.headers;
        let is_free = || !carries_credential(headers, &config.auth.credential_headers);
        if config.upstream.target == UpstreamTarget::Mock || (config.upstream.api_key.is_none() && !is_free()) {
            return;
        }
        let used = SpaceInUse {
            space: self.space.key,
            space_state: Arc::clone(&self.space.space_state),
            asked_model: Arc::from(self.job.request.space.model_name()),
            now_ms: context.now_ms,
        };
        let has_room = self.flow.watch.add(used, || canary::lane_beside(&self.lane(self.priority()), config, headers));
        if !has_room && self.flow.throttled.admits(TOO_MANY) {
            tracing::warn!(most = MAX_SPACES, "{TOO_MANY}");
        }
    }
}
