//! Rate limits of the service: limits, what is left of them, and calls that wait for their turn.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::AdminContext;
use super::reply::rounded;
use crate::upstream::{LimitFigures, PaceFigures, PaceReport};

/// Number of models, counted at each target, that are shown. Those with the most waiting calls go first.
const MAX_SHOWN: usize = 64;

/// Reason why calls wait, the most important one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PaceStatus {
    Held,
    WaitsForRequests,
    WaitsForTokens,
    WaitsForFoundRate,
    WaitsForOthers,
    Free,
}

/// Limits of one model at one place, of all credentials together.
#[derive(Debug)]
struct ModelLimits {
    status: PaceStatus,
    credentials: usize,
    requests: Option<LimitFigures>,
    tokens: Option<LimitFigures>,
    found_per_minute: Option<f64>,
    held: Duration,
    interactive_waiting: usize,
    bulk_waiting: usize,
    in_flight: usize,
}

/// Returns the limits of each model, at each of several targets.
pub(super) fn figures(context: &AdminContext) -> Value {
    shown(context.batcher.router().pace_reports())
}

fn shown(reports: Vec<PaceReport>) -> Value {
    let mut models: BTreeMap<(Option<Arc<str>>, String), ModelLimits> = BTreeMap::new();
    for PaceReport { target, model, figures } in reports {
        let added = ModelLimits::of(&figures);
        match models.entry((target, model)) {
            std::collections::btree_map::Entry::Vacant(place) => drop(place.insert(added)),
            std::collections::btree_map::Entry::Occupied(mut place) => place.get_mut().add(&added),
        }
    }
    let mut models: Vec<_> = models.into_iter().collect();
    // Stable, so equal ones stay in the order of their names.
    models.sort_by_key(|(_, limits)| std::cmp::Reverse(limits.waiting()));
    models.truncate(MAX_SHOWN);
    models.sort_by(|(one, _), (other, _)| one.cmp(other));
    models.iter().map(|((target, model), limits)| limits.shown(target.as_deref(), model)).collect()
}

impl PaceStatus {
    fn of(figures: &PaceFigures) -> Self {
        let share = |limit: Option<LimitFigures>| limit.map(|limit| limit.left / limit.per_minute);
        let is_waiting = figures.interactive_waiting + figures.bulk_waiting > 0;
        match (share(figures.requests), share(figures.tokens)) {
            _ if !figures.held.is_zero() => Self::Held,
            _ if !is_waiting => Self::Free,
            _ if figures.found_per_minute.is_some() => Self::WaitsForFoundRate,
            (None, None) => Self::WaitsForOthers,
            (Some(requests), Some(tokens)) if tokens < requests => Self::WaitsForTokens,
            (Some(_), _) => Self::WaitsForRequests,
            (None, Some(_)) => Self::WaitsForTokens,
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Self::Held => "held after a refusal",
            Self::WaitsForRequests => "waits for requests",
            Self::WaitsForTokens => "waits for tokens",
            Self::WaitsForFoundRate => "waits at the found rate",
            Self::WaitsForOthers => "waits for other calls",
            Self::Free => "free",
        }
    }
}

impl ModelLimits {
    fn of(figures: &PaceFigures) -> Self {
        let PaceFigures { requests, tokens, found_per_minute, held, .. } = *figures;
        let PaceFigures { interactive_waiting, bulk_waiting, in_flight, .. } = *figures;
        let status = PaceStatus::of(figures);
        Self {
            status,
            credentials: 1,
            requests,
            tokens,
            found_per_minute,
            held,
            interactive_waiting,
            bulk_waiting,
            in_flight,
        }
    }

    /// Adds those of another credential. The scarcer limits are shown.
    fn add(&mut self, other: &Self) {
        let least = |one: Option<f64>, other: Option<f64>| match (one, other) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        self.status = self.status.min(other.status);
        self.credentials += other.credentials;
        self.requests = scarcer(self.requests, other.requests);
        self.tokens = scarcer(self.tokens, other.tokens);
        self.found_per_minute = least(self.found_per_minute, other.found_per_minute);
        self.held = self.held.max(other.held);
        self.interactive_waiting += other.interactive_waiting;
        self.bulk_waiting += other.bulk_waiting;
        self.in_flight += other.in_flight;
    }

    const fn waiting(&self) -> usize {
        self.interactive_waiting + self.bulk_waiting
    }

    fn shown(&self, target: Option<&str>, model: &str) -> Value {
        let limit = |limit: Option<LimitFigures>| {
            limit.map(|limit| json!({"per_minute": rounded(limit.per_minute, 1), "left": rounded(limit.left, 1)}))
        };
        json!({
            "target": target,
            "model": model,
            "credentials": self.credentials,
            "status": self.status.label(),
            "requests": limit(self.requests),
            "tokens": limit(self.tokens),
            "found_per_minute": self.found_per_minute.map(|rate| rounded(rate, 1)),
            "held_seconds": rounded(self.held.as_secs_f64(), 1),
            "waiting": {"interactive": self.interactive_waiting, "bulk": self.bulk_waiting},
            "in_flight": self.in_flight,
        })
    }
}

/// Returns the limit of which the smaller share is left.
fn scarcer(one: Option<LimitFigures>, other: Option<LimitFigures>) -> Option<LimitFigures> {
    let share = |limit: &LimitFigures| limit.left / limit.per_minute;
    match (one, other) {
        (Some(one), Some(other)) => Some(if share(&other) < share(&one) { other } else { one }),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: PaceFigures = PaceFigures {
        requests: None,
        tokens: None,
        found_per_minute: None,
        held: Duration::ZERO,
        interactive_waiting: 0,
        bulk_waiting: 0,
        in_flight: 0,
    };

    const fn limit(per_minute: f64, left: f64) -> LimitFigures {
        LimitFigures { per_minute, left }
    }

    fn report(target: &str, model: &str, figures: PaceFigures) -> PaceReport {
        PaceReport { target: Some(target.into()), model: model.to_owned(), figures }
    }

    #[test]
    fn the_status_names_what_calls_wait_for() {
        let waiting = PaceFigures { bulk_waiting: 1, ..IDLE };
        let (requests, tokens) = (Some(limit(60.0, 6.0)), Some(limit(1_000.0, 50.0)));
        for (figures, status) in [
            (IDLE, "free"),
            (PaceFigures { requests, ..IDLE }, "free"),
            (PaceFigures { requests, ..waiting }, "waits for requests"),
            (PaceFigures { requests, tokens, ..waiting }, "waits for tokens"),
            (PaceFigures { tokens, ..waiting }, "waits for tokens"),
            (PaceFigures { found_per_minute: Some(90.0), ..waiting }, "waits at the found rate"),
            (waiting, "waits for other calls"),
            (PaceFigures { held: Duration::from_secs(2), requests, ..waiting }, "held after a refusal"),
        ] {
            assert_eq!(PaceStatus::of(&figures).label(), status, "{figures:?}");
        }
    }

    #[test]
    fn credentials_of_one_model_are_added_and_the_scarcer_limit_is_shown() {
        let one = PaceFigures { requests: Some(limit(60.0, 50.0)), bulk_waiting: 2, in_flight: 1, ..IDLE };
        let other = PaceFigures { requests: Some(limit(600.0, 60.0)), held: Duration::from_millis(1_500), ..one };
        let shown = shown(vec![report("a", "m", one), report("a", "m", other), report("b", "m", IDLE)]);
        let first = json!({
            "target": "a", "model": "m", "credentials": 2, "status": "held after a refusal",
            "requests": {"per_minute": 600.0, "left": 60.0}, "tokens": null, "found_per_minute": null,
            "held_seconds": 1.5, "waiting": {"interactive": 0, "bulk": 4}, "in_flight": 2,
        });
        assert_eq!((&shown[0], &shown[1]["target"], shown.as_array().map(Vec::len)), (&first, &json!("b"), Some(2)));
    }

    #[test]
    fn of_too_many_models_those_with_waiting_calls_are_shown() {
        let mut reports: Vec<PaceReport> = (100..200).map(|n| report("a", &format!("m{n}"), IDLE)).collect();
        reports.push(report("a", "zz", PaceFigures { interactive_waiting: 1, ..IDLE }));
        let shown = shown(reports);
        let names: Vec<&str> =
            shown.as_array().expect("a list").iter().filter_map(|row| row["model"].as_str()).collect();
        assert_eq!((names.len(), names[0], names[MAX_SHOWN - 1]), (MAX_SHOWN, "m100", "zz"));
    }
}
