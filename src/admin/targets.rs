//! Calls, failures and state of each of several targets.

use serde_json::{Value, json};

use super::AdminContext;
use super::reply::{rounded, share};
use crate::observe::metrics::TargetFigures;

/// Returns the figures of each target, in the order of the configuration; null without targets.
pub(super) fn figures(context: &AdminContext) -> Value {
    let figures = context.metrics.targets.figures();
    if figures.is_empty() {
        return Value::Null;
    }
    let all = figures.iter().map(|target| target.calls).sum();
    let states = context.batcher.router().overview();
    let state = |name: &str| states.iter().find(|place| &*place.name == name).map(|place| place.state);
    let one = |target: &TargetFigures| {
        json!({
            "name": target.name,
            "calls": target.calls,
            "share": rounded(share(target.calls, all), 4),
            "failures": target.failures,
            "moves": target.moves,
            "breaker": target.breaker.label(),
            "state": state(&target.name),
            "disagrees_for": target.disagrees_for,
        })
    };
    figures.iter().map(one).collect()
}
