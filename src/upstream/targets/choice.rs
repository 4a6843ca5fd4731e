//! Choice of the place for a call: the free one with the least load, else the one whose rate limits admit the call
//! first.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::canary::CANARY_TOKENS;
use super::gate::{Agreement, ModelGate, PlaceHold, Standing};
use super::place::TargetPlace;
use crate::upstream::call::Call;
use crate::upstream::next_step::FIRST_AGAIN;
use crate::upstream::paced::MERGED_HOLDS;
use crate::upstream::pacing::{PaceTurn, Pacer, TurnOrder, TurnWish};
use crate::upstream::permit::Claim;
use crate::upstream::{Class, Failure, LaneProperties};

/// Pause before another look if every place has its maximum of calls in flight.
pub(super) const NO_ROOM_PAUSE: Duration = Duration::from_millis(20);

/// Up to this share, the use of a rate limit does not change the choice.
const UNUSED: f64 = 0.1;

/// A call on its way to a place.
pub(super) struct RoutedCall<'a> {
    pub(super) properties: &'a LaneProperties,
    pub(super) call: &'a Call<'a>,
    pub(super) gate: Option<Arc<ModelGate>>,
    /// Places that this call has tried.
    tried: Vec<usize>,
    /// The place of each refusal for its rate, and the time of the first one.
    limited: Vec<usize>,
    first_limited: Option<Instant>,
    /// Places that have failed otherwise, such as by an outage, and may be tried once more.
    failed: Vec<usize>,
    /// True if they have been.
    is_reopened: bool,
}

/// The next step of a call.
pub(super) enum Next {
    /// The call is made at this place, in its turn if it has one.
    Go(Arc<TargetPlace>, Option<PaceTurn>),
    /// The vectors of this place are compared first, in this turn if there is one.
    Examine(Arc<TargetPlace>, Option<PaceTurn>),
    /// The call waits in all of these lines, and goes where its turn comes first.
    Queue(Vec<TurnLine>),
    /// The places may be free after this time.
    LookAgain(Duration),
    /// No place is left.
    Nowhere,
}

/// Line of the calls that wait for their turn at one place.
pub(super) struct TurnLine {
    pub(super) place: Arc<TargetPlace>,
    pub(super) pacer: Arc<Pacer>,
    pub(super) wish: TurnWish,
}

/// The places as they are for one call.
pub(super) struct Choice<'a> {
    /// Those that serve the model.
    places: Vec<&'a Arc<TargetPlace>>,
    request: &'a RoutedCall<'a>,
    standings: Vec<Standing>,
    has_reference: bool,
    claim: Claim,
    now: Instant,
}

impl<'a> RoutedCall<'a> {
    pub(super) fn new(properties: &'a LaneProperties, call: &'a Call<'a>, gate: Option<Arc<ModelGate>>) -> Self {
        let (tried, limited, failed) = (Vec::new(), Vec::new(), Vec::new());
        Self { properties, call, gate, tried, limited, first_limited: None, failed, is_reopened: false }
    }

    /// Returns the places that the call may still try.
    pub(super) fn open<'p>(&self, places: &'p [Arc<TargetPlace>]) -> impl Iterator<Item = &'p Arc<TargetPlace>> {
        let model = self.properties.space.model_name();
        // Without a place in the table of models, nothing is known of the vectors of other targets.
        let most = if self.gate.is_some() { usize::MAX } else { 1 };
        let serving = places.iter().filter(move |place| place.serves(model)).take(most);
        serving.filter(|place| !self.tried.contains(&place.index))
    }

    /// Returns true if the call goes before new ones at this place, because it was refused there a few times.
    fn goes_again(&self, place: &TargetPlace) -> bool {
        (1..=FIRST_AGAIN).contains(&self.refusals_at(place))
    }

    /// Returns the number of times that this place has refused the call for its rate.
    fn refusals_at(&self, place: &TargetPlace) -> u32 {
        let refusals = self.limited.iter().filter(|index| **index == place.index).count();
        u32::try_from(refusals).unwrap_or(u32::MAX)
    }

    /// Returns true if this place has refused the call for its rate.
    fn was_limited_at(&self, place: &TargetPlace) -> bool {
        self.limited.contains(&place.index)
    }

    /// Notes that the call leaves a place. It may come back if the place has refused it for its rate, or once if others
    /// limit the rate.
    pub(super) fn leave(&mut self, place: &TargetPlace, failure: &Failure) {
        self.tried.push(place.index);
        if failure.class == Class::Throttled && failure.may_be_retried() {
            self.limited.push(place.index);
            self.first_limited.get_or_insert_with(Instant::now);
        } else {
            self.limited.retain(|index| *index != place.index);
        }
        if matches!(failure.class, Class::Unavailable(_)) && failure.may_be_retried() {
            self.failed.push(place.index);
        }
    }

    /// Lets the call return once to the places that have failed otherwise than by their rate limits. Returns false if
    /// there is none.
    pub(super) fn reopen(&mut self) -> bool {
        if std::mem::replace(&mut self.is_reopened, true) {
            return false;
        }
        let failed = std::mem::take(&mut self.failed);
        self.tried.retain(|index| !failed.contains(index));
        !failed.is_empty()
    }

    /// Notes that no turn in these lines comes in time.
    pub(super) fn give_up(&mut self, lines: &[TurnLine]) {
        for line in lines {
            self.tried.push(line.place.index);
            self.limited.retain(|index| *index != line.place.index);
        }
    }

    /// Returns true if no other place is left, not even one that limits the rate.
    pub(super) fn is_last(&self, places: &[Arc<TargetPlace>], place: &TargetPlace) -> bool {
        let standings = self.gate.as_ref().map(|gate| gate.standings()).unwrap_or_default();
        let now = Instant::now();
        let may_agree =
            |index: usize| standings.get(index).is_none_or(|standing| standing.verdict(now) != Agreement::Disagrees);
        let is_other = |index: usize| index != place.index && may_agree(index);
        !self.limited.iter().any(|index| is_other(*index)) && !self.open(places).any(|other| is_other(other.index))
    }

    /// Returns true if the call may return to a place that has failed.
    pub(super) fn may_reopen(&self) -> bool {
        !self.is_reopened && !self.failed.is_empty()
    }

    /// Returns true if a place that has refused the call for its rate may admit it later.
    fn may_return(&self, line: &TurnLine) -> bool {
        let refusals = self.refusals_at(&line.place);
        // The load of a call for several requests may be the cause, so each request is sent separately next.
        if self.call.is_merged() && refusals > MERGED_HOLDS {
            return false;
        }
        self.first_limited.is_some_and(|first| line.pacer.holds(line.wish.tokens, (first, refusals)))
    }
}

impl<'a> Choice<'a> {
    /// Looks at the places. Without knowledge of the model there is no choice.
    pub(super) fn new(places: &'a [Arc<TargetPlace>], request: &'a RoutedCall<'a>, claim: Claim) -> Option<Self> {
        let gate = request.gate.as_ref()?;
        let (standings, has_reference) = (gate.standings(), gate.reference().is_some());
        let model = request.properties.space.model_name();
        let places = places.iter().filter(|place| place.serves(model)).collect();
        Some(Self { places, request, standings, has_reference, claim, now: Instant::now() })
    }

    /// Returns the next step.
    pub(super) fn next(&self) -> Next {
        // A place that another call compares comes last: this call would wait for the comparison.
        let mut by_load: Vec<((bool, f64), &Arc<TargetPlace>)> =
            self.usable().map(|place| ((self.is_examined(place), self.load(place)), place)).collect();
        // The first place gives the reference, if it can: an operator expects its vectors, whatever its weight.
        if self.has_reference {
            by_load.sort_by(|(one, _), (other, _)| one.0.cmp(&other.0).then_with(|| one.1.total_cmp(&other.1)));
        }
        let usable: Vec<(&Arc<TargetPlace>, Option<PlaceHold>)> =
            by_load.into_iter().map(|(_, place)| (place, self.hold(place))).collect();
        for (place, _) in usable.iter().filter(|(place, hold)| hold.is_none() && place.has_room()) {
            match self.line(place) {
                None => return self.go(place, None),
                Some(TurnLine { pacer, wish, .. }) => {
                    if let Some(turn) = pacer.try_turn(&wish) {
                        return self.go(place, Some(turn));
                    }
                }
            }
        }
        self.lines(&usable).unwrap_or_else(|| self.without_line(&usable))
    }

    /// Returns true if a place admits the call now. A place in whose line the call waits does not: it is then queued.
    pub(super) fn has_free(&self) -> bool {
        self.usable().any(|place| {
            let admits = || self.line(place).is_none_or(|line| line.pacer.admits(&line.wish));
            self.hold(place).is_none() && place.has_room() && admits()
        })
    }

    /// Returns the step to a place: its vectors are compared first, unless they are known to agree.
    pub(super) fn go(&self, place: &Arc<TargetPlace>, turn: Option<PaceTurn>) -> Next {
        match self.standings[place.index].verdict(self.now) {
            Agreement::Agrees => Next::Go(Arc::clone(place), turn),
            Agreement::Unknown | Agreement::Disagrees => Next::Examine(Arc::clone(place), turn),
        }
    }

    /// Returns the lines in which the call may wait. A place that limits the rate counts as well, but only with learned
    /// limits: without them, nothing is known of the end of the refusals.
    fn lines(&self, usable: &[(&Arc<TargetPlace>, Option<PlaceHold>)]) -> Option<Next> {
        let holds = |line: &TurnLine| line.pacer.holds(line.wish.tokens, (self.now, 0));
        let fresh = usable.iter().filter_map(|(place, hold)| match hold {
            // Calls for other models have its room, so the turn would come at once.
            None => self.line(place).filter(|line| place.has_room() || !line.pacer.admits(&line.wish)),
            Some(hold) if hold.is_throttled => self.line(place).filter(holds),
            Some(_) => None,
        });
        let limited = self.places.iter().filter(|place| self.request.was_limited_at(place) && self.may_agree(place));
        let again = limited.filter_map(|place| self.line(place).filter(|line| self.request.may_return(line)));
        let lines: Vec<TurnLine> = fresh.chain(again).collect();
        (!lines.is_empty()).then_some(Next::Queue(lines))
    }

    /// Returns the step of a call that no line may admit in time.
    fn without_line(&self, usable: &[(&Arc<TargetPlace>, Option<PlaceHold>)]) -> Next {
        let deadline = self.request.call.deadlines().into_iter().max();
        let held = usable.iter().filter_map(|(place, hold)| Some((*place, (*hold)?)));
        match held.min_by_key(|(_, hold)| hold.until) {
            _ if usable.iter().any(|(_, hold)| hold.is_none()) => Next::LookAgain(NO_ROOM_PAUSE),
            None => Next::Nowhere,
            Some((_, hold)) if hold.is_throttled && deadline.is_some_and(|deadline| hold.until < deadline) => {
                Next::LookAgain(hold.until - self.now)
            }
            // It has failed a moment ago, and so have all others.
            Some((place, _)) => self.go(place, None),
        }
    }

    /// Returns the line of a place, unless its calls are not paced.
    fn line(&self, place: &Arc<TargetPlace>) -> Option<TurnLine> {
        let pacer = place.executor.pacer(self.request.properties)?;
        let order = TurnOrder::of(self.claim.priority, self.request.goes_again(place));
        let is_compared = self.standings[place.index].verdict(self.now) != Agreement::Unknown;
        let tokens = if is_compared { self.request.call.tokens() } else { CANARY_TOKENS };
        Some(TurnLine { place: Arc::clone(place), pacer, wish: TurnWish { order, caller: self.claim.caller, tokens } })
    }

    /// Returns true if another call compares the vectors of a place now, or those of another place, so that this call
    /// would have to wait.
    fn is_examined(&self, place: &TargetPlace) -> bool {
        let is_unknown = self.standings[place.index].verdict(self.now) == Agreement::Unknown;
        is_unknown && self.request.gate.as_ref().is_some_and(|gate| gate.is_examining())
    }

    fn load(&self, place: &TargetPlace) -> f64 {
        let pacer = place.executor.pacer(self.request.properties);
        place.load() + pacer.map_or(0.0, |pacer| (pacer.used() - UNUSED).max(0.0))
    }

    fn hold(&self, place: &TargetPlace) -> Option<PlaceHold> {
        self.standings[place.index].hold(self.now)
    }

    /// Returns true if the call may still try a place outside of the lines.
    pub(super) fn has_other(&self, lines: &[TurnLine]) -> bool {
        self.usable().any(|place| lines.iter().all(|line| line.place.index != place.index))
    }

    /// Returns the places that the call may still try and whose vectors are not known to disagree.
    fn usable(&self) -> impl Iterator<Item = &'a Arc<TargetPlace>> {
        let untried = |place: &TargetPlace| !self.request.tried.contains(&place.index);
        self.places.iter().copied().filter(move |place| untried(place) && self.may_agree(place))
    }

    /// Returns true unless the vectors of a place are known to disagree.
    fn may_agree(&self, place: &TargetPlace) -> bool {
        self.standings[place.index].verdict(self.now) != Agreement::Disagrees
    }
}
