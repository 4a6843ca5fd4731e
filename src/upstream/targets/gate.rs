//! What is known of each place for each model: whether its vectors agree with the reference, and whether it failed a
//! moment ago.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::reference::{Reference, References};
use crate::key::{Key, KeyMap};
use crate::upstream::Failure;

/// Maximum number of models. Those beyond it are served by the first target alone.
const MAX_MODELS: usize = 4_096;

/// Maximum length of a name that is kept.
const MAX_NAME_BYTES: usize = 256;

/// A place whose vectors disagree is examined again after this time.
const DISAGREEMENT: Duration = Duration::from_mins(10);

/// Time for which a place gets no calls for a model after a failure; it doubles with each further one.
const FIRST_HOLD: Duration = Duration::from_secs(1);
const LONGEST_HOLD: Duration = Duration::from_secs(30);

/// Longest time without calls that a place may ask for.
const LONGEST_ASKED: Duration = Duration::from_mins(1);

/// The models, with what is known of each place.
pub(super) struct Gate {
    models: Mutex<KeyMap<Arc<ModelGate>>>,
    pub(super) references: Option<Arc<dyn References>>,
    places: usize,
}

/// One model at all places.
pub(super) struct ModelGate {
    /// Held while a place is examined, so that one place gives the reference and all others are compared with it.
    examining: tokio::sync::Mutex<LastExamined>,
    /// The callers' name of the model; empty if it is very long.
    asked: Box<str>,
    state: Mutex<ModelState>,
}

/// The last comparison that has failed.
pub(super) type LastExamined = Option<FailedComparison>;

/// A comparison that has failed.
pub(super) struct FailedComparison {
    pub(super) place: usize,
    /// Time of the failure.
    pub(super) at: Instant,
    pub(super) failure: Failure,
}

struct ModelState {
    reference: Option<Arc<Reference>>,
    places: Vec<Standing>,
}

/// What is known of one place for one model.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    verdict: Agreement,
    /// Time at which the verdict has to be confirmed.
    until: Option<Instant>,
    hold: Option<PlaceHold>,
}

/// Result of the comparison with the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Agreement {
    /// There was none.
    Unknown,
    /// The vectors are the same.
    Agrees,
    /// The vectors are others.
    Disagrees,
}

/// Time without calls after a failure.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlaceHold {
    pub(super) until: Instant,
    /// True if the place limits the rate of calls, so an earlier one would be refused.
    pub(super) is_throttled: bool,
    set_at: Instant,
    next: Duration,
}

impl Standing {
    /// Returns the verdict as it is now.
    pub(super) fn verdict(&self, now: Instant) -> Agreement {
        if self.until.is_some_and(|until| now >= until) { Agreement::Unknown } else { self.verdict }
    }

    /// Returns the hold, if it lasts.
    pub(super) fn hold(&self, now: Instant) -> Option<PlaceHold> {
        self.hold.filter(|hold| now < hold.until)
    }
}

impl ModelState {
    fn replace(&mut self, reference: Option<Arc<Reference>>) {
        self.reference = reference;
        for place in &mut self.places {
            (place.verdict, place.until) = (Agreement::Unknown, None);
        }
    }
}

impl Gate {
    pub(super) fn new(places: usize, references: Option<Arc<dyn References>>) -> Self {
        Self { models: Mutex::default(), references, places }
    }

    /// Returns the state of a model, which callers give this name, or `None` if there are too many models.
    pub(super) fn of(&self, model: Key, asked: &str) -> Option<Arc<ModelGate>> {
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = models.get(&model) {
            return Some(Arc::clone(known));
        }
        if models.len() >= MAX_MODELS {
            return None;
        }
        let unknown = Standing { verdict: Agreement::Unknown, until: None, hold: None };
        let state = ModelState { reference: None, places: vec![unknown; self.places] };
        let asked = if asked.len() > MAX_NAME_BYTES { Box::default() } else { Box::from(asked) };
        let gate = Arc::new(ModelGate { examining: tokio::sync::Mutex::default(), asked, state: Mutex::new(state) });
        models.insert(model, Arc::clone(&gate));
        Some(gate)
    }

    /// Ends the reference of a model, named as in requests or in answers, or those of all models.
    pub(super) fn forget(&self, named: Option<&str>) {
        let models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        for model in models.values() {
            model.forget(named);
        }
    }

    /// Returns what is known of each place, for each model.
    pub(super) fn of_all(&self) -> Vec<Vec<Standing>> {
        let models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        models.values().map(|model| model.standings()).collect()
    }

    /// Returns the state of a model without creating it.
    pub(super) fn find(&self, model: &Key) -> Option<Arc<ModelGate>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner).get(model).cloned()
    }
}

impl ModelGate {
    /// Returns what is known of each place.
    pub(super) fn standings(&self) -> Vec<Standing> {
        self.state().places.clone()
    }

    /// Waits for the end of the other comparisons.
    pub(super) async fn examining(&self) -> tokio::sync::MutexGuard<'_, LastExamined> {
        self.examining.lock().await
    }

    /// Returns true while a place is compared.
    pub(super) fn is_examining(&self) -> bool {
        self.examining.try_lock().is_err()
    }

    /// Returns the vectors to compare with.
    pub(super) fn reference(&self) -> Option<Arc<Reference>> {
        self.state().reference.clone()
    }

    /// Notes the vectors to compare with, as they are stored.
    pub(super) fn set_reference(&self, reference: Reference) -> Arc<Reference> {
        let reference = Arc::new(reference);
        self.state().reference = Some(Arc::clone(&reference));
        reference
    }

    /// Ends the reference if the model has this name, so that each place is compared anew.
    fn forget(&self, named: Option<&str>) {
        let mut state = self.state();
        let answered = state.reference.as_ref().map(|reference| Arc::clone(&reference.model));
        if named.is_none_or(|named| named == &*self.asked || answered.is_some_and(|model| named == &*model)) {
            state.replace(None);
        }
    }

    /// Replaces the vectors to compare with. Verdicts on other places are about the former ones, so they end.
    pub(super) fn renew(&self, reference: Reference) {
        self.state().replace(Some(Arc::new(reference)));
    }

    /// Notes a verdict, which is confirmed after `every`, if that is set.
    pub(super) fn judge(&self, place: usize, agrees: bool, every: Option<Duration>) {
        let now = Instant::now();
        let standing = &mut self.state().places[place];
        let (verdict, until) = if agrees {
            (Agreement::Agrees, every.map(|every| now + every))
        } else {
            (Agreement::Disagrees, Some(now + DISAGREEMENT))
        };
        (standing.verdict, standing.until) = (verdict, until);
    }

    /// Notes a failure of a call that was begun at `begun`. A place that limits the rate is left alone for the time that
    /// it asks for.
    pub(super) fn hold(&self, place: usize, begun: Instant, (asked, is_throttled): (Option<Duration>, bool)) {
        let (standing, now) = (&mut self.state().places[place], Instant::now());
        // After a minute a call is tried, whatever time the place has named.
        let asked = asked.map(|asked| asked.min(LONGEST_ASKED));
        match &mut standing.hold {
            // Calls that were in flight together fail together, which is one failure.
            Some(hold) if begun <= hold.set_at => {
                hold.until = hold.until.max(asked.map_or(now, |asked| now + asked));
                hold.is_throttled |= is_throttled;
            }
            hold => {
                let wait = hold.map_or(FIRST_HOLD, |hold| hold.next);
                let (until, next) = (now + asked.unwrap_or(wait), (2 * wait).min(LONGEST_HOLD));
                *hold = Some(PlaceHold { until, is_throttled, set_at: now, next });
            }
        }
    }

    /// Notes an answer.
    pub(super) fn answered(&self, place: usize) {
        self.state().places[place].hold = None;
    }

    fn state(&self) -> MutexGuard<'_, ModelState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Start of a call that was begun after the last failure.
    fn later() -> Instant {
        Instant::now() + Duration::from_millis(1)
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_tried_after_a_minute_whatever_time_the_place_has_named() {
        let gate = Gate::new(2, None).of(Key::from_bytes([0; 32]), "tiny").expect("there is room");
        let now = Instant::now();
        let is_held = |seconds| gate.standings()[1].hold(now + seconds * SECOND).is_some();
        for asked in [3_600 * SECOND, Duration::MAX] {
            gate.hold(1, later(), (Some(asked), true));
            assert!(is_held(59) && !is_held(60), "{asked:?}");
            assert!(gate.standings()[0].hold(now).is_none());
        }
        gate.hold(1, later(), (Some(5 * SECOND), true));
        assert!(is_held(4) && !is_held(5));
        gate.answered(1);
        assert!(!is_held(0));
    }

    #[tokio::test(start_paused = true)]
    async fn holds_without_a_named_time_double_up_to_half_a_minute() {
        let gate = Gate::new(1, None).of(Key::from_bytes([0; 32]), "tiny").expect("there is room");
        let waits: Vec<u64> = (0..7)
            .map(|_| {
                let calls_in_flight_together = [later(), Instant::now(), Instant::now()];
                for begun in calls_in_flight_together {
                    gate.hold(0, begun, (None, false));
                }
                let hold = gate.standings()[0].hold(Instant::now()).expect("it lasts");
                hold.until.duration_since(Instant::now()).as_secs()
            })
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
    }
}
