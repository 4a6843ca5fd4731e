//! Checks of `[drift]`.

use super::ranges::ANY_LENGTH;
use crate::config::reader::Reader;
use crate::config::{DriftAction, DriftConfig};

pub(super) fn drift(reader: &mut Reader) -> DriftConfig {
    let actions = [DriftAction::Warn, DriftAction::Refetch].map(|action| (action.name(), action));
    DriftConfig {
        every: Some(reader.duration("drift.every", &ANY_LENGTH)).filter(|every| !every.is_zero()),
        action: reader.choice("drift.action", &actions),
        // Below the lower limit, two equal models differ by rounding alone.
        bound: reader.ratio("drift.bound", &(1e-6..=1.0)),
    }
}
