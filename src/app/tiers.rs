//! The tiers below memory, as the configuration wants them.

use std::sync::Arc;

use crate::clock::Clock;
use crate::config::Live;
use crate::epochs::Epochs;
use crate::metrics::Metrics;
use crate::tiers::LowerTier;

/// What the tiers below memory are made of.
#[expect(dead_code, reason = "there is no tier below memory yet")]
pub(super) struct Ground<'a> {
    pub(super) live: &'a Live,
    pub(super) clock: &'a Clock,
    pub(super) metrics: &'a Arc<Metrics>,
    pub(super) epochs: &'a Arc<Epochs>,
}

/// The tiers below memory, in the order they are asked.
pub(super) async fn lower(_ground: Ground<'_>) -> Vec<Arc<dyn LowerTier>> {
    Vec::new()
}
