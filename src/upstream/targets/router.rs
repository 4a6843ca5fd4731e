//! Where calls are made: the only upstream, or one of several targets.

use std::sync::Arc;

use futures_util::future::join_all;
use http::Uri;
use tokio::time::Instant;

use super::choice::RoutedCall;
use super::gate::{Agreement, Gate, PlaceHold, Standing};
use super::place::{TargetPlace, rebased};
use super::reference::References;
use super::several::Several;
use super::verdict::too_long;
use crate::config::{Config, Live};
use crate::key::Key;
use crate::observe::logs::Throttled;
use crate::observe::metrics::{BreakerState, Metrics};
use crate::process::shared_fields::SharedFields;
use crate::upstream::answered::Answered;
use crate::upstream::call::Call;
use crate::upstream::call_executor::CallExecutor;
use crate::upstream::pacing::{Pacer, TurnOrder};
use crate::upstream::permit::CallPermit;
use crate::upstream::{Failure, LaneProperties, PaceReport};

/// Where calls are made: the upstream, or one of several targets.
pub struct Router {
    pub(super) kind: RouterKind,
}

pub(super) enum RouterKind {
    /// With the base URL of the lanes' addresses and that of the calls, if they differ.
    Single(Box<CallExecutor>, Option<(Uri, Uri)>),
    Several(Box<Several>),
}

/// State of a target for one model, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaceReport {
    /// Name of the target.
    pub name: Arc<str>,
    /// What happens to calls for the model.
    pub state: &'static str,
}

impl Router {
    /// Creates a router to one upstream.
    pub fn single(executor: CallExecutor) -> Self {
        Self { kind: RouterKind::Single(Box::new(executor), None) }
    }

    /// Creates a router to one upstream that is called at another base URL than that of the lanes' addresses.
    pub fn moved(executor: CallExecutor, from: Uri, to: Uri) -> Self {
        Self { kind: RouterKind::Single(Box::new(executor), Some((from, to))) }
    }

    /// Creates a router to several targets. Without `references`, those of the targets end with the process.
    pub fn several(
        places: Vec<TargetPlace>,
        references: Option<Arc<dyn References>>,
        live: Live,
        (metrics, throttled): (Arc<Metrics>, Throttled),
    ) -> Self {
        let gate = Gate::new(places.len(), references);
        let url = places.first().map_or_else(Uri::default, |place| place.target.url.clone());
        let first = live.load().upstream.identity.clone().unwrap_or(url);
        let places = places.into_iter().map(Arc::new).collect();
        let several = Several { places, first, gate, live, metrics, throttled };
        Self { kind: RouterKind::Several(Box::new(several)) }
    }

    /// Makes a call.
    pub(in crate::upstream) async fn execute(
        &self,
        properties: &LaneProperties,
        call: &Call<'_>,
        permit: &mut CallPermit,
    ) -> Result<Answered, Failure> {
        match &self.kind {
            RouterKind::Single(executor, None) => executor.execute(properties, call, permit).await,
            RouterKind::Single(executor, Some((from, to))) => {
                let uri = rebased(&properties.uri, from, to).map_err(too_long)?;
                let there = LaneProperties { uri, ..properties.clone() };
                Box::pin(executor.execute(&there, call, permit)).await
            }
            RouterKind::Several(several) => {
                let gate = several.gate.of(properties.model, properties.space.model_name());
                let request = RoutedCall::new(properties, call, gate);
                Box::pin(several.execute(request, permit)).await
            }
        }
    }

    /// Returns the pacer of a lane's calls. With several targets, each call chooses one of their pacers.
    pub(in crate::upstream) fn pacer(&self, properties: &LaneProperties) -> Option<Arc<Pacer>> {
        match &self.kind {
            RouterKind::Single(executor, _) => executor.pacer(properties),
            RouterKind::Several(_) => None,
        }
    }

    /// Returns the tokens of the largest call that the limits of any place admit at once.
    pub(in crate::upstream) fn largest_call(&self, properties: &LaneProperties, order: TurnOrder) -> usize {
        let largest =
            |executor: &CallExecutor| executor.pacer(properties).map_or(usize::MAX, |pacer| pacer.largest_call(order));
        match &self.kind {
            RouterKind::Single(executor, _) => largest(executor),
            RouterKind::Several(several) => {
                let serving = several.places.iter().filter(|place| place.serves(properties.space.model_name()));
                serving.map(|place| largest(&place.executor)).max().unwrap_or(usize::MAX)
            }
        }
    }

    /// Returns true if the host or the space counts as unavailable everywhere, so vecho makes no calls of its own.
    pub(in crate::upstream) fn is_unavailable(&self, properties: &LaneProperties, config: &Config) -> bool {
        let is_down = |executor: &CallExecutor, properties: &LaneProperties| {
            executor.breaker.state() != BreakerState::Closed || executor.is_failing(properties, config)
        };
        match &self.kind {
            RouterKind::Single(executor, _) => is_down(executor, properties),
            RouterKind::Several(several) => several.places.iter().all(|place| {
                let there = place.properties(properties, (&several.first, None));
                there.is_ok_and(|there| is_down(&place.executor, &there))
            }),
        }
    }

    /// Returns the number of different requests for a model that failed since its last answer.
    pub fn failures(&self, model: &Key) -> u32 {
        match &self.kind {
            RouterKind::Single(executor, _) => executor.health().failures(model),
            RouterKind::Several(several) => {
                let failures = several.places.iter().map(|place| place.executor.health().failures(&place.key(model)));
                failures.min().unwrap_or(0)
            }
        }
    }

    /// Divides the configured rate limits among the replicas that reach a store. Never returns.
    pub(in crate::upstream) async fn share_pace(&self, store: Arc<dyn SharedFields>) {
        match &self.kind {
            RouterKind::Single(executor, _) => executor.share_pace(store).await,
            RouterKind::Several(several) => {
                join_all(several.places.iter().map(|place| place.executor.share_pace(Arc::clone(&store)))).await;
            }
        }
    }

    /// Returns the rate limits of each model as they are now.
    pub fn pace_reports(&self) -> Vec<PaceReport> {
        match &self.kind {
            RouterKind::Single(executor, _) => executor.pace_reports(),
            RouterKind::Several(several) => {
                several.places.iter().flat_map(|place| place.executor.pace_reports()).collect()
            }
        }
    }

    /// Returns the state of each target for a model. There is none without targets.
    pub fn reports(&self, model: &Key, named: &str) -> Vec<PlaceReport> {
        let RouterKind::Several(several) = &self.kind else { return Vec::new() };
        let (now, standings) = (Instant::now(), several.gate.find(model).map(|gate| gate.standings()));
        let report = |place: &Arc<TargetPlace>| {
            let standing = standings.as_ref().map(|standings| standings[place.index]);
            PlaceReport { name: Arc::clone(&place.target.name), state: state_of(place, named, standing, now) }
        };
        several.places.iter().map(report).collect()
    }
}

fn state_of(place: &TargetPlace, model: &str, standing: Option<Standing>, now: Instant) -> &'static str {
    if place.serves(model) { state_in(standing, now) } else { "does not serve the model" }
}

/// Returns the state of a place for a model that it serves.
pub(super) fn state_in(standing: Option<Standing>, now: Instant) -> &'static str {
    let hold = standing.and_then(|standing| standing.hold(now));
    match (standing.map_or(Agreement::Unknown, |standing| standing.verdict(now)), hold) {
        (Agreement::Disagrees, _) => "gives other vectors",
        (_, Some(PlaceHold { is_throttled: true, .. })) => "limits the rate",
        (_, Some(_)) => "failed a moment ago",
        (Agreement::Unknown, None) => "not yet compared",
        (Agreement::Agrees, None) => "serves",
    }
}
