//! One incident: its times, its cause, and the number of affected inputs by model.

use serde::Serialize;

use crate::observe::logs::shortened;
use crate::process::clock::rfc3339;

/// Maximum number of models that one incident counts by name.
const MAX_MODELS: usize = 16;
/// Name under which further models are counted.
const OTHERS: &str = "other";
const MAX_MODEL_BYTES: usize = 128;
const MAX_CAUSE_BYTES: usize = 300;

/// A request, or a part of it, that found the upstream unavailable.
#[derive(Clone, Copy, Debug)]
pub struct Incident<'a> {
    /// The failure: the criterion of unavailability, followed by the detail.
    pub cause: &'a str,
    /// The requested model.
    pub model: &'a str,
    /// The answer that the caller gets.
    pub instead: Instead,
    /// Number of inputs answered that way.
    pub inputs: u64,
}

/// The answer to a request for which the upstream is unavailable, from the mildest to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Instead {
    /// An error.
    Errors,
    /// Expired entries.
    Stale,
    /// Mock vectors.
    Mocks,
}

impl Instead {
    pub(super) const fn in_words(self) -> &'static str {
        match self {
            Self::Errors => "requests fail",
            Self::Stale => "stale entries are being served",
            Self::Mocks => "mock vectors are being served",
        }
    }
}

/// A stored incident.
#[derive(Clone, Debug)]
pub(super) struct IncidentRecord {
    pub(super) from_ms: u64,
    /// `None` while the incident is active.
    pub(super) to_ms: Option<u64>,
    pub(super) cause: String,
    /// The worst kind of answer so far; a worse one replaces the cause.
    worst: Instead,
    pub(super) counts: IncidentCounts,
    by_model: Vec<(String, IncidentCounts)>,
    /// Times of the first and the last mock.
    pub(super) mocks: Option<(u64, u64)>,
    /// Times of the first and the last stale entry.
    pub(super) stale: Option<(u64, u64)>,
}

/// Answers given because of an incident.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct IncidentCounts {
    /// Inputs answered with a mock.
    pub mock_inputs: u64,
    /// Inputs answered with an expired entry.
    pub stale_inputs: u64,
    /// Requests answered with an error.
    pub failed_requests: u64,
}

/// An incident for display.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IncidentReport {
    /// Time of the first answer without the upstream, in RFC 3339.
    pub from: String,
    /// End of the incident, in RFC 3339; `None` while it is active.
    pub to: Option<String>,
    /// True if the upstream is unavailable now, as far as is known.
    pub active: bool,
    /// Description of the failure.
    pub cause: String,
    /// Answers of all models.
    #[serde(flatten)]
    pub counts: IncidentCounts,
    /// Answers by model.
    pub models: Vec<ModelReport>,
    /// Inputs to embed again; `None` if no mock was answered.
    pub embed_again: Option<Affected>,
}

/// The answers of one model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelReport {
    /// The requested model.
    pub model: String,
    /// Answers of this model.
    #[serde(flatten)]
    pub counts: IncidentCounts,
}

/// Inputs whose vectors are mocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Affected {
    /// Number of inputs.
    pub inputs: u64,
    /// Time of the first mock, in RFC 3339.
    pub from: String,
    /// Time of the last mock, in RFC 3339.
    pub to: String,
}

impl IncidentCounts {
    fn add(&mut self, incident: &Incident<'_>) {
        match incident.instead {
            Instead::Mocks => self.mock_inputs += incident.inputs,
            Instead::Stale => self.stale_inputs += incident.inputs,
            Instead::Errors => self.failed_requests += 1,
        }
    }
}

impl IncidentRecord {
    pub(super) fn new(now_ms: u64, incident: &Incident<'_>) -> Self {
        Self {
            from_ms: now_ms,
            to_ms: None,
            cause: shortened(incident.cause, MAX_CAUSE_BYTES).into_owned(),
            worst: incident.instead,
            counts: IncidentCounts::default(),
            by_model: Vec::new(),
            mocks: None,
            stale: None,
        }
    }

    pub(super) fn add(&mut self, now_ms: u64, incident: &Incident<'_>) {
        // The cause of a worse answer is of more interest than that of the first one.
        if incident.instead > self.worst {
            self.worst = incident.instead;
            self.cause = shortened(incident.cause, MAX_CAUSE_BYTES).into_owned();
        }
        let span = match incident.instead {
            Instead::Mocks => Some(&mut self.mocks),
            Instead::Stale => Some(&mut self.stale),
            Instead::Errors => None,
        };
        if let Some(span) = span {
            // The first time stays, and the last one moves.
            *span = Some((span.map_or(now_ms, |(first, _)| first), now_ms));
        }
        self.counts.add(incident);
        self.of_model(incident.model).add(incident);
    }

    fn of_model(&mut self, model: &str) -> &mut IncidentCounts {
        let name = shortened(model, MAX_MODEL_BYTES).into_owned();
        let is_full = self.by_model.len() >= MAX_MODELS;
        let place = self.by_model.iter().position(|(known, _)| *known == name);
        // Further models share one entry, which is behind those with a name.
        let place = place.or_else(|| is_full.then_some(MAX_MODELS)).unwrap_or(self.by_model.len());
        if place == self.by_model.len() {
            self.by_model.push((if is_full { OTHERS.to_owned() } else { name }, IncidentCounts::default()));
        }
        &mut self.by_model[place].1
    }

    /// Returns the affected models in the order of their first failure.
    pub(super) fn models(&self) -> impl Iterator<Item = &str> {
        self.by_model.iter().map(|(model, _)| model.as_str())
    }

    pub(super) fn report(&self) -> IncidentReport {
        let affected = |(from, to)| Affected { inputs: self.counts.mock_inputs, from: rfc3339(from), to: rfc3339(to) };
        let by_model = self.by_model.iter();
        IncidentReport {
            from: rfc3339(self.from_ms),
            to: self.to_ms.map(rfc3339),
            active: self.to_ms.is_none(),
            cause: self.cause.clone(),
            counts: self.counts,
            models: by_model.map(|(model, counts)| ModelReport { model: model.clone(), counts: *counts }).collect(),
            embed_again: self.mocks.map(affected),
        }
    }
}
