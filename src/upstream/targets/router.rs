//! Chooses a place for each call, and moves on to another one if it fails.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::Uri;
use tokio::time::Instant;

use super::gate::{Agreement, Gate, ModelGate, PlaceHold, Standing};
use super::place::{TargetPlace, rebased};
use super::reference::References;
use super::verdict::{as_seen_by_callers, moves_on, no_target, worse};
use crate::config::{Config, Live};
use crate::key::Key;
use crate::observe::logs::{Throttled, shorten_for_log};
use crate::observe::metrics::{BreakerState, Metrics};
use crate::process::shared_fields::SharedFields;
use crate::upstream::answered::{Answered, CallInfo};
use crate::upstream::call::Call;
use crate::upstream::call_executor::CallExecutor;
use crate::upstream::pacing::{Pacer, TurnOrder, TurnWish};
use crate::upstream::permit::{CallPermit, Claim};
use crate::upstream::piece::Piece;
use crate::upstream::{Class, Failure, LaneProperties, PaceReport, UnavailableReason};
use crate::wire::Encoding;

/// Pause before another look if every place has its maximum of calls in flight.
const NO_ROOM_PAUSE: Duration = Duration::from_millis(20);

/// Up to this share, the use of a rate limit does not change the choice.
const UNUSED: f64 = 0.1;

const REFUSES: &str = "a target refuses its key or does not know the model; the other targets serve its calls";

/// Where calls are made: the upstream, or one of several targets.
pub struct Router {
    pub(super) kind: RouterKind,
}

pub(super) enum RouterKind {
    /// With the base URL of the lanes' addresses and that of the calls, if they differ.
    Single(Box<CallExecutor>, Option<(Uri, Uri)>),
    Several(Box<Several>),
}

pub(super) struct Several {
    pub(super) places: Vec<Arc<TargetPlace>>,
    /// Base URL of the lanes' addresses: that of the first target, or `upstream.identity`.
    pub(super) first: Uri,
    pub(super) gate: Gate,
    pub(super) live: Live,
    pub(super) metrics: Arc<Metrics>,
    pub(super) throttled: Throttled,
}

/// State of a target for one model, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaceReport {
    /// Name of the target.
    pub name: Arc<str>,
    /// What happens to calls for the model.
    pub state: &'static str,
}

/// A call on its way to a place.
pub(super) struct RoutedCall<'a> {
    pub(super) properties: &'a LaneProperties,
    pub(super) call: &'a Call<'a>,
    pub(super) gate: Option<Arc<ModelGate>>,
    /// Places that this call has tried.
    tried: Vec<usize>,
    /// Those of them that have refused it for its rate.
    limited: Vec<usize>,
}

/// The next step of a call.
enum Next {
    Go(Arc<TargetPlace>),
    Examine(Arc<TargetPlace>),
    Wait(Duration),
    /// All places limit the rate, and this one, which has refused the call, admits it first: it waits there.
    Stay(Arc<TargetPlace>),
    /// No place is left.
    Nowhere,
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
                let request = RoutedCall { properties, call, gate, tried: Vec::new(), limited: Vec::new() };
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

impl Several {
    async fn execute(&self, mut request: RoutedCall<'_>, permit: &mut CallPermit) -> Result<Answered, Failure> {
        let deadline = request.call.deadlines().into_iter().max().unwrap_or_else(Instant::now);
        let mut last: Option<Failure> = None;
        loop {
            match self.next(&request, permit.claim(), deadline) {
                Next::Nowhere => return Err(last.unwrap_or_else(no_target)),
                Next::Wait(wait) => {
                    // As for the wait before a retry: it holds neither memory nor a permit.
                    request.call.reservation.give_up();
                    if !permit.pause(wait, deadline).await {
                        return Err(last.unwrap_or_else(no_target));
                    }
                    request.call.reservation.take_again().await;
                }
                Next::Examine(place) => {
                    if let Err(failure) = self.examine(&place, &request).await {
                        self.left(&place, &mut request, &failure);
                        last = Some(worse(last, failure));
                    }
                }
                Next::Stay(place) => {
                    let stayed = self.call(&place, (&request, true), permit).await;
                    // A refusal of a target says more than a turn that comes too late.
                    return stayed.map_err(|failure| match (failure.class, last) {
                        (Class::NotInTime { .. }, Some(last)) => last,
                        _ => failure,
                    });
                }
                Next::Go(place) => {
                    let failure = match self.call(&place, (&request, false), permit).await {
                        Ok(answered) => return Ok(answered),
                        Err(failure) => as_seen_by_callers(failure, &place),
                    };
                    // A place that learns from the failure is asked for numbers next.
                    if !place.learns_from(&failure) {
                        if !moves_on(&failure) {
                            return Err(failure);
                        }
                        self.left(&place, &mut request, &failure);
                    }
                    last = Some(worse(last, failure));
                }
            }
        }
    }

    /// Makes the call at a place. While others are left, a place gets one attempt, unless the call stays there.
    async fn call(
        &self,
        place: &Arc<TargetPlace>,
        (request, stays): (&RoutedCall<'_>, bool),
        permit: &mut CallPermit,
    ) -> Result<Answered, Failure> {
        let reference = request.gate.as_ref().and_then(|gate| gate.reference());
        let dimension = reference.as_ref().map(|reference| reference.dimension());
        let there = place.properties(request.properties, (&self.first, dimension)).map_err(too_long)?;
        let numbers = Some(Encoding::Float).filter(|_| place.asks_for_numbers());
        let is_rewritten = there.space.model != request.properties.space.model || numbers.is_some();
        let there = LaneProperties { encoding: numbers.unwrap_or(there.encoding), ..there };
        let body = if is_rewritten { (request.call.written)(&there.space, numbers) } else { request.call.body.clone() };
        let has_other = !stays && self.open(request).any(|other| other.index != place.index);
        let attempts = if has_other { 1 } else { request.call.attempts };
        let encoding = numbers.unwrap_or(request.call.encoding);
        // The last place waits itself only if no other one limits the rate: another one may be free sooner.
        let waits = stays || (!has_other && request.limited.is_empty());
        let call = Call { body, encoding, attempts, waits, ..*request.call };
        let _under_way = place.enter();
        let mut answered = place.executor.execute(&there, &call, permit).await?;
        if let Some(gate) = &request.gate {
            gate.answered(place.index);
        }
        // All targets of a model have one name for it, or each change of the target would look like a new model.
        if let (Some(info), Some(reference)) = (Arc::get_mut(&mut answered.call), reference) {
            let CallInfo { model, .. } = info;
            *model = Some(reference.model.to_string());
        }
        Ok(answered)
    }

    /// Notes that a call leaves a place.
    fn left(&self, place: &Arc<TargetPlace>, request: &mut RoutedCall<'_>, failure: &Failure) {
        request.tried.push(place.index);
        if failure.class == Class::Throttled && failure.may_be_retried() {
            request.limited.push(place.index);
        }
        self.metrics.targets.left(place.index);
        if let Some(gate) = &request.gate {
            gate.hold(place.index, failure.retry_after(), failure.class == Class::Throttled);
        }
        if failure.class == Class::Refused && self.throttled.admits(REFUSES) {
            let (target, model) = (&*place.target.name, request.properties.space.model_name());
            let status = failure.reply.as_ref().map_or(0, |reply| reply.status.as_u16());
            tracing::error!(target, model = &*shorten_for_log(model), status, "{REFUSES}");
        }
    }

    /// Returns the places that a call may still try.
    fn open<'s>(&'s self, request: &'s RoutedCall<'_>) -> impl Iterator<Item = &'s Arc<TargetPlace>> {
        let model = request.properties.space.model_name();
        // Without a place in the table of models, nothing is known of the vectors of other targets.
        let most = if request.gate.is_some() { usize::MAX } else { 1 };
        let serving = self.places.iter().filter(move |place| place.serves(model)).take(most);
        serving.filter(|place| !request.tried.contains(&place.index))
    }

    /// Returns the next step. If all places that are left limit the rate for longer than one that has refused the call
    /// for its rate, the call returns to that one.
    fn next(&self, request: &RoutedCall<'_>, claim: Claim, deadline: Instant) -> Next {
        let wait = match self.next_untried(request, claim, deadline) {
            Next::Wait(wait) => wait,
            Next::Nowhere if !request.limited.is_empty() => Duration::MAX,
            next => return next,
        };
        let order = TurnOrder::of(claim.priority, true);
        let wish = TurnWish { order, caller: claim.caller, tokens: tokens_of(request.call) };
        let limited = request.limited.iter().map(|index| &self.places[*index]);
        // Without learned limits, nothing is known of the end of a refusal.
        let pacer = |place: &TargetPlace| place.executor.pacer(request.properties).filter(|pacer| pacer.learns());
        let waits = limited.filter_map(|place| Some((place, pacer(place)?.wait(&wish))));
        match waits.min_by_key(|(_, wait)| *wait) {
            Some((place, sooner)) if sooner < wait => Next::Stay(Arc::clone(place)),
            _ if wait == Duration::MAX => Next::Nowhere,
            _ => Next::Wait(wait),
        }
    }

    fn next_untried(&self, request: &RoutedCall<'_>, claim: Claim, deadline: Instant) -> Next {
        let Some(gate) = &request.gate else {
            return self.open(request).next().map_or(Next::Nowhere, |place| Next::Go(Arc::clone(place)));
        };
        let (now, standings) = (Instant::now(), gate.standings());
        let order = TurnOrder::of(claim.priority, false);
        let wish = TurnWish { order, caller: claim.caller, tokens: tokens_of(request.call) };
        let pacer = |place: &TargetPlace| place.executor.pacer(request.properties);
        let is_usable = |place: &&Arc<TargetPlace>| standings[place.index].verdict(now) != Agreement::Disagrees;
        let usable: Vec<&Arc<TargetPlace>> = self.open(request).filter(is_usable).collect();
        let hold = |place: &Arc<TargetPlace>| standings[place.index].hold(now);
        let ready: Vec<&Arc<TargetPlace>> = usable.iter().copied().filter(|place| hold(place).is_none()).collect();
        let wait = |place: &Arc<TargetPlace>| {
            let room = if place.has_room() { Duration::ZERO } else { NO_ROOM_PAUSE };
            pacer(place).map_or(Duration::ZERO, |pacer| pacer.wait(&wish)).max(room)
        };
        let least = |places: Vec<&Arc<TargetPlace>>| {
            let load =
                |place: &TargetPlace| place.load() + pacer(place).map_or(0.0, |pacer| (pacer.used() - UNUSED).max(0.0));
            places.into_iter().min_by(|one, other| load(one).total_cmp(&load(other))).cloned()
        };
        let free = ready.iter().copied().filter(|place| wait(place).is_zero()).collect();
        let chosen = match (least(free), ready.iter().map(|place| wait(place)).min()) {
            (Some(free), _) => free,
            (None, Some(shortest)) if shortest < deadline.saturating_duration_since(now) => {
                return Next::Wait(shortest);
            }
            // The budget would outlast the request, so the service decides.
            (None, Some(_)) => least(ready).expect("there is one"),
            (None, None) => {
                let held = usable.into_iter().filter_map(|place| Some((place, hold(place)?)));
                match held.min_by_key(|(_, hold)| hold.until) {
                    None => return Next::Nowhere,
                    Some((_, hold)) if hold.is_throttled && hold.until < deadline => {
                        return Next::Wait(hold.until - now);
                    }
                    Some((place, _)) => Arc::clone(place),
                }
            }
        };
        match standings[chosen.index].verdict(now) {
            Agreement::Agrees => Next::Go(chosen),
            Agreement::Unknown | Agreement::Disagrees => Next::Examine(chosen),
        }
    }
}

fn tokens_of(call: &Call<'_>) -> usize {
    call.batch.iter().map(|piece: &Piece| piece.load().tokens).sum()
}

pub(super) fn too_long(error: crate::upstream::UriTooLong) -> Failure {
    Failure::unavailable(UnavailableReason::Status, error.to_string())
}
