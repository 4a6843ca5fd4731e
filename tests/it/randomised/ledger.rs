//! A model of the cache: the latest time at which each vector can have been fetched. A vector that is not recorded
//! here must not be served from memory.

use std::collections::HashMap;

use super::wish::{Cell, Control, MAX_AGE_SECONDS, Wish};

pub(super) const TTL_MS: u64 = 100_000;
pub(super) const STALE_MS: u64 = 60_000;

/// The requests of one step, and earlier fetches.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    shared: bool,
    latest_ms: HashMap<Cell, u64>,
    /// For each cell, the requests of this step that may fetch it for all callers.
    asked_now: HashMap<Cell, Vec<usize>>,
    /// True if the model changes between calls. A request may then fetch its own inputs again and find them cached.
    unsteady: bool,
}

/// Upper limits on a request's inputs from each source.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Allowed {
    pub(super) memory: usize,
    pub(super) joined: usize,
    pub(super) stale: usize,
}

impl Ledger {
    pub(super) fn new(shared: bool) -> Self {
        Self { shared, ..Self::default() }
    }

    /// Records the requests of a step before it begins.
    pub(super) fn begin(&mut self, wishes: &[Wish], unsteady: bool) {
        self.unsteady = unsteady;
        self.asked_now.clear();
        for (number, wish) in wishes.iter().enumerate().filter(|(_, wish)| wish.fills()) {
            for cell in wish.cells(self.shared) {
                self.asked_now.entry(cell).or_default().push(number);
            }
        }
    }

    /// Records the end of the step.
    pub(super) fn end(&mut self, now_ms: u64) {
        for cell in std::mem::take(&mut self.asked_now).into_keys() {
            self.latest_ms.insert(cell, now_ms);
        }
    }

    /// Records a purge of all entries while no request was in flight.
    pub(super) fn forget_all(&mut self) {
        self.latest_ms.clear();
    }

    /// Records a purge of one model.
    pub(super) fn forget_model(&mut self, model: &str) {
        self.latest_ms.retain(|cell, _| cell.model != model);
    }

    /// Returns the upper limits for the request of this number.
    pub(super) fn allowed(&self, number: usize, wish: &Wish, now_ms: u64) -> Allowed {
        let max_age_ms = if wish.control == Control::MaxAge { MAX_AGE_SECONDS * 1_000 } else { u64::MAX };
        let cells = wish.cells(self.shared);
        let age = |cell: &Cell| self.latest_ms.get(cell).map(|latest_ms| now_ms - latest_ms);
        let by_others = |cell: &Cell| {
            self.asked_now
                .get(cell)
                .is_some_and(|numbers| numbers.iter().any(|other| self.unsteady || *other != number))
        };
        let stored = |cell: &Cell| {
            wish.control != Control::NoCache && age(cell).is_some_and(|age_ms| age_ms < TTL_MS && age_ms <= max_age_ms)
        };
        let kept = |cell: &Cell| age(cell).is_some_and(|age_ms| age_ms < TTL_MS + STALE_MS);
        let count = |holds: &dyn Fn(&Cell) -> bool| cells.iter().filter(|cell| holds(cell)).count();
        Allowed {
            memory: count(&|cell| by_others(cell) || stored(cell)),
            joined: count(&by_others),
            stale: count(&|cell| by_others(cell) || kept(cell)),
        }
    }
}
