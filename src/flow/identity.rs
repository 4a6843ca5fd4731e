//! The model behind an answer, as the space learns it.

use super::Flow;
use crate::config::Config;
use crate::learned::{ModelChange, ModelIdentity, SpaceState};
use crate::observe::logs::shorten_for_log;

const DRIFT: &str = "the upstream's model has changed; older vectors of its space will be fetched again";

impl Flow {
    /// Learns the model of an answer: its name, the dimension of its vectors, and the revision of the space when the
    /// call was sent.
    pub(super) fn learn(
        &self,
        space_state: &SpaceState,
        config: &Config,
        (named, dimension, revision): (&str, usize, u64),
    ) -> (ModelIdentity, ModelChange) {
        // Names that the configuration declares equal share one identity, so a change between them is no drift.
        let model = config.cache.same_models.get(named).map_or(named, String::as_str);
        let (identity, lesson) = space_state.learn(model, dimension, revision);
        if lesson == ModelChange::First && self.tiers.may_hold_older() {
            // The lower tiers may hold records of another model that this process has not seen yet.
            space_state.expect_older_records();
        }
        if lesson == ModelChange::Drift {
            self.metrics.cache.model_drifts.inc();
            if self.throttled.admits(DRIFT) {
                tracing::warn!(model = &*shorten_for_log(model), "{DRIFT}");
            }
        }
        (identity, lesson)
    }
}
