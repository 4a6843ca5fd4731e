//! Incidents: times during which requests found the upstream unavailable. The log, health and the dashboard show them.
//!
//! An incident begins at the time of the first answer without the upstream. It ends when the upstream has answered each
//! model that failed, or when it answers any model and no request has failed for ten seconds. The newest incidents are
//! kept in their order, and none of them expires.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::catalogue;
use super::handles::{Counter, Gauge, Registrar};
use super::incident::{Incident, IncidentRecord, IncidentReport, Instead};
use crate::observe::logs::shorten_for_log;
use crate::process::clock::Period;

/// Maximum number of stored incidents.
pub const MAX_INCIDENTS: usize = 50;
/// A failure within this time after the end of an incident continues it.
const FLAP_MS: u64 = 10_000;
/// Minimum time between two warnings about one incident.
const QUIET_MS: u64 = 60_000;
/// Time after the last mock or stale entry during which health reports it.
const SHOWN_FOR_MS: u64 = 60_000;
/// Maximum number of failing models that an incident tracks.
const MAX_FAILING: usize = 16;

/// The newest incident, as health reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncidentState {
    /// The cause of the incident.
    pub cause: String,
    /// The requested models, at most three.
    pub models: Vec<String>,
    /// Time span of failed requests; `None` once the incident is over.
    pub errors: Option<Period>,
    /// Time span of mocks; `None` if the incident is over and the last mock is older than a minute.
    pub mocks: Option<Period>,
    /// Time span of stale entries, with the same rule.
    pub stale: Option<Period>,
}

/// All incidents of one process.
#[derive(Debug)]
pub struct Incidents {
    /// Checked on each successful fetch, so that the lock is only taken during an incident.
    is_active: AtomicBool,
    book: Mutex<IncidentBook>,
    total: Counter,
    active: Gauge,
}

#[derive(Debug, Default)]
struct IncidentBook {
    /// Newest first.
    records: VecDeque<IncidentRecord>,
    /// Models that failed and have not been answered since. Empty while no incident is active.
    failing: Vec<String>,
    last_failure_ms: u64,
    /// The last warning about the current incident; `None` once its end has been logged.
    warned: Option<Instead>,
    warned_at_ms: Option<u64>,
}

impl Incidents {
    pub(super) fn new(registrar: &Registrar<'_>) -> Self {
        Self {
            is_active: AtomicBool::default(),
            book: Mutex::default(),
            total: registrar.counter(&catalogue::INCIDENTS),
            active: registrar.gauge(&catalogue::INCIDENT_ACTIVE),
        }
    }

    /// Records a request that found the upstream unavailable. `now_ms` is the time of its answer.
    pub fn note(&self, now_ms: u64, incident: &Incident<'_>) {
        let mut book = self.book();
        // The flag changes only under the lock, so it agrees with the records.
        self.is_active.store(true, Ordering::Relaxed);
        self.active.set(1);
        if book.reopen(now_ms, incident) {
            self.total.inc();
        }
        book.add_failing(incident.model);
        book.last_failure_ms = now_ms;
        if let Some(record) = book.records.front_mut() {
            record.add(now_ms, incident);
        }
        if book.is_news(now_ms, incident.instead) {
            (book.warned, book.warned_at_ms) = (Some(incident.instead), Some(now_ms));
            let (cause, model) = (&*shorten_for_log(incident.cause), &*shorten_for_log(incident.model));
            tracing::warn!(cause, model, "the upstream is unavailable: {}", incident.instead.in_words());
        }
    }

    /// Records that the upstream answered a request for `model`.
    pub fn end(&self, now_ms: u64, model: &str) {
        if !self.is_active.load(Ordering::Relaxed) {
            return;
        }
        let mut book = self.book();
        book.failing.retain(|failing| failing != model);
        // The incident goes on while another model fails, unless its failures have stopped.
        if !book.failing.is_empty() && now_ms.saturating_sub(book.last_failure_ms) < FLAP_MS {
            return;
        }
        self.is_active.store(false, Ordering::Relaxed);
        self.active.set(0);
        book.close(now_ms);
    }

    /// Returns the newest incident if it is active or answered a mock or a stale entry within the last minute.
    pub fn standing(&self, now_ms: u64) -> Option<IncidentState> {
        let book = self.book();
        let record = book.records.front()?;
        let spell = |span: Option<(u64, u64)>| {
            let (from_ms, to_ms) = span?;
            match record.to_ms {
                None => Some(Period::Since(from_ms)),
                Some(_) if now_ms.saturating_sub(to_ms) < SHOWN_FOR_MS => Some(Period::Until(to_ms)),
                Some(_) => None,
            }
        };
        let standing = IncidentState {
            cause: record.cause.clone(),
            models: record.models().map(str::to_owned).take(3).collect(),
            errors: record.to_ms.is_none().then_some(Period::Since(record.from_ms)),
            mocks: spell(record.mocks),
            stale: spell(record.stale),
        };
        (standing.errors.is_some() || standing.mocks.is_some() || standing.stale.is_some()).then_some(standing)
    }

    /// Returns the newest `most` incidents, newest first.
    pub fn newest(&self, most: usize) -> Vec<IncidentReport> {
        self.book().records.iter().take(most).map(IncidentRecord::report).collect()
    }

    fn book(&self) -> MutexGuard<'_, IncidentBook> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IncidentBook {
    /// Ensures that the first record is active. Returns true if the record is new.
    fn reopen(&mut self, now_ms: u64, incident: &Incident<'_>) -> bool {
        if let Some(record) = self.records.front_mut()
            && record.to_ms.is_none_or(|ended| now_ms.saturating_sub(ended) < FLAP_MS)
        {
            // Failures shortly after the end belong to the same incident, so a flapping upstream fills no list.
            record.to_ms = None;
            return false;
        }
        // The oldest record makes room for the new one.
        self.records.truncate(MAX_INCIDENTS - 1);
        self.records.push_front(IncidentRecord::new(now_ms, incident));
        (self.warned, self.warned_at_ms) = (None, None);
        true
    }

    /// Adds a failing model. Models beyond the limit are not tracked; their next failure soon after the end continues
    /// the incident.
    fn add_failing(&mut self, model: &str) {
        if self.failing.len() < MAX_FAILING && !self.failing.iter().any(|failing| failing == model) {
            self.failing.push(model.to_owned());
        }
    }

    fn is_news(&self, now_ms: u64, instead: Instead) -> bool {
        match self.warned {
            None => self.warned_at_ms.is_none_or(|at| now_ms.saturating_sub(at) >= QUIET_MS),
            // A change to mocks is always logged.
            Some(warned) => instead == Instead::Mocks && warned != Instead::Mocks,
        }
    }

    fn close(&mut self, now_ms: u64) {
        self.failing.clear();
        // The end is logged only if the begin was.
        let warned = self.warned.take();
        let Some(record) = self.records.front_mut() else {
            return;
        };
        record.to_ms = Some(now_ms);
        if let Some(warned) = warned {
            let mocks = if warned == Instead::Mocks { ": no more mock vectors" } else { "" };
            tracing::info!(
                lasted_ms = now_ms.saturating_sub(record.from_ms),
                mock_inputs = record.counts.mock_inputs,
                stale_inputs = record.counts.stale_inputs,
                failed_requests = record.counts.failed_requests,
                "the upstream answers again{mocks}"
            );
        }
    }
}

#[cfg(test)]
#[path = "incidents_tests.rs"]
mod tests;
