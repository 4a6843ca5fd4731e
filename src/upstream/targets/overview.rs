//! State of each target over all models, and the end of their references by a purge.

use std::sync::Arc;

use tokio::time::Instant;

use super::place::TargetPlace;
use super::router::{PlaceReport, Router, RouterKind, state_in};
use crate::observe::metrics::BreakerState;

/// States for a single model, the most important one first.
const BY_IMPORTANCE: [&str; 4] = ["gives other vectors", "limits the rate", "failed a moment ago", "serves"];

impl Router {
    /// Returns the state of each target: that of its breaker if it is not closed, else the most important one of all
    /// models. There is none without targets.
    pub fn overview(&self) -> Vec<PlaceReport> {
        let RouterKind::Several(several) = &self.kind else { return Vec::new() };
        let (now, models) = (Instant::now(), several.gate.of_all());
        let report = |place: &Arc<TargetPlace>| {
            let states = models.iter().map(|standings| state_in(Some(standings[place.index]), now));
            let state = match place.executor.breaker.state() {
                BreakerState::Open => "breaker open",
                BreakerState::HalfOpen => "breaker half-open",
                BreakerState::Closed => most_important(states),
            };
            PlaceReport { name: Arc::clone(&place.target.name), state }
        };
        several.places.iter().map(report).collect()
    }

    /// Ends the vectors that targets are compared with for a purged model, or for all models. Otherwise this process
    /// would go on with them, and a replica that starts later would begin with other ones.
    pub fn forget_references(&self, model: Option<&str>) {
        if let RouterKind::Several(several) = &self.kind {
            several.gate.forget(model);
        }
    }
}

fn most_important(states: impl Iterator<Item = &'static str>) -> &'static str {
    let place = |state: &'static str| BY_IMPORTANCE.iter().position(|known| *known == state);
    states.filter_map(place).min().map_or("not yet compared", |first| BY_IMPORTANCE[first])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_important_state_of_all_models_counts() {
        let of = |states: &[&'static str]| most_important(states.iter().copied());
        assert_eq!(of(&[]), "not yet compared");
        assert_eq!(of(&["not yet compared", "serves"]), "serves");
        assert_eq!(of(&["serves", "limits the rate", "failed a moment ago"]), "limits the rate");
        assert_eq!(of(&["limits the rate", "gives other vectors"]), "gives other vectors");
    }
}
