//! One stored vector with the metadata needed to serve it.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::cache::bounded::{Entry, Mark};
use crate::learned::ModelIdentity;
use crate::vector::packed::Packed;

use std::sync::Arc;

/// Stored vector, shared by `Arc` between the tier and all responses in flight.
#[derive(Debug)]
pub struct Record {
    /// Components of the vector, packed.
    pub vector: Packed,
    /// Name of the model in the upstream's response, and the length of the vector.
    pub identity: ModelIdentity,
    /// Name of the model in the request. Many upstreams answer with another name.
    asked_model: Arc<str>,
    /// Creation and expiry times.
    pub times: Times,
    /// Tokens of the input; zero if not counted yet.
    tokens: AtomicU32,
    /// Use of this entry in memory, for shedding.
    mark: Mark,
}

/// Creation and expiry times of a record, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Time when the upstream answered.
    pub created_ms: u64,
    /// End of the time in which it is served as fresh.
    pub fresh_until_ms: u64,
    /// End of the time in which it may be served stale while the upstream is down.
    pub stale_until_ms: u64,
}

/// Age of a record at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// It may be served.
    Fresh,
    /// It may be served only while the upstream is down.
    Stale,
    /// It must not be served.
    Over,
}

impl Times {
    /// Returns the age at `now_ms`, for a caller that accepts records of at most `max_age_ms`.
    pub fn age(&self, now_ms: u64, max_age_ms: Option<u64>) -> Age {
        // Another replica's clock may be ahead, so the creation time may lie in the future.
        let young_enough = max_age_ms.is_none_or(|max_ms| now_ms.saturating_sub(self.created_ms) <= max_ms);
        if now_ms >= self.stale_until_ms.max(self.fresh_until_ms) {
            Age::Over
        } else if now_ms < self.fresh_until_ms && young_enough {
            Age::Fresh
        } else {
            // A record that is too old for this caller may still serve it while the upstream is down.
            Age::Stale
        }
    }
}

impl Record {
    /// Creates a record, with `tokens` if they are known.
    pub fn new(vector: impl Into<Packed>, identity: ModelIdentity, times: Times, tokens: Option<u32>) -> Self {
        let asked_model = Arc::clone(&identity.model);
        let (tokens, mark) = (AtomicU32::new(tokens.unwrap_or(0)), Mark::default());
        // The requested name is the answering one until `asked_as` sets another; both share their memory.
        Self { vector: vector.into(), identity, asked_model, times, tokens, mark }
    }

    /// Sets the model that was requested, if its name differs from the one in the response.
    #[must_use]
    pub fn asked_as(self, asked_model: &Arc<str>) -> Self {
        Self { asked_model: Arc::clone(asked_model), ..self }
    }

    /// Shares the names of `known` if they are equal, because each copy of a name takes memory.
    #[must_use]
    pub fn known_as(mut self, known: Option<ModelIdentity>) -> Self {
        if let Some(known) = known.filter(|known| *known == self.identity) {
            if self.asked_model == known.model {
                self.asked_model = Arc::clone(&known.model);
            }
            self.identity = known;
        }
        self
    }

    /// Returns the names of the model: the upstream's and the caller's.
    pub fn models(&self) -> [&str; 2] {
        [&self.identity.model, &self.asked_model]
    }

    /// Returns the tokens of the input, if they were counted.
    pub fn tokens(&self) -> Option<u32> {
        Some(self.tokens.load(Ordering::Relaxed)).filter(|tokens| *tokens > 0)
    }

    /// Sets the tokens of the input. Every count of the same text gives the same number.
    pub fn set_tokens(&self, tokens: u32) {
        self.tokens.store(tokens, Ordering::Relaxed);
    }
}

impl Entry for Arc<Record> {
    fn weight_bytes(&self) -> u64 {
        // All records of a space may share one name, but a record decoded from bytes may own its copy, and the name may
        // be long. The record cannot tell which is the case, so it counts the full length.
        let is_shared = Arc::ptr_eq(&self.asked_model, &self.identity.model);
        let asked_bytes = if is_shared { 0 } else { self.asked_model.len() };
        (size_of::<Record>() + self.vector.payload().len() + self.identity.model.len() + asked_bytes) as u64
    }

    fn mark(&self) -> Option<&Mark> {
        Some(&self.mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times { created_ms: 100, fresh_until_ms: 200, stale_until_ms: 300 };

    #[test]
    fn a_record_is_fresh_then_stale_then_expired() {
        assert_eq!(TIMES.age(199, None), Age::Fresh);
        assert_eq!(TIMES.age(200, None), Age::Stale);
        assert_eq!(TIMES.age(300, None), Age::Over);
    }

    #[test]
    fn weight_includes_the_length_of_model_names() {
        let weight = |model: &str, asked_model: &str| {
            let vector = crate::vector::Vector::from_components(&[1.0]).expect("it is a vector");
            let record =
                Record::new(vector, ModelIdentity { model: model.into(), dimension: 1, revision: 0 }, TIMES, None);
            Arc::new(record.asked_as(&asked_model.into())).weight_bytes()
        };
        let long = "m".repeat(5_000);
        assert_eq!(weight(&long, "a") - weight("m", "a"), 4_999);
        assert_eq!(weight("m", &long) - weight("m", "a"), 4_999);
    }

    #[test]
    fn max_age_makes_an_older_record_stale() {
        assert_eq!(TIMES.age(150, Some(50)), Age::Fresh);
        assert_eq!(TIMES.age(151, Some(50)), Age::Stale);
    }

    #[test]
    fn names_are_shared_only_between_records_of_one_identity() {
        let identity = |model: &str, dimension| ModelIdentity { model: model.into(), dimension, revision: 0 };
        let record = |asked_model: &str| {
            let vector = crate::vector::Vector::from_components(&[1.0, 2.0]).expect("it is a vector");
            Record::new(vector, identity("m", 2), TIMES, None).asked_as(&asked_model.into())
        };
        let known = identity("m", 2);
        let shared = record("alias").known_as(Some(known.clone()));
        assert!(Arc::ptr_eq(&shared.identity.model, &known.model));
        assert_eq!(shared.models(), ["m", "alias"], "what was asked for stays");
        for other in [identity("other", 2), identity("m", 3)] {
            assert_eq!(record("m").known_as(Some(other)).identity, identity("m", 2));
        }
    }
}
