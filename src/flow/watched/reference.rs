//! The vectors that later answers are compared with.

use std::sync::Arc;

use bytes::Bytes;

use crate::cache::purges::Generation;
use crate::cache::{Record, Stack, Times};
use crate::key::Key;
use crate::learned::ModelIdentity;
use crate::upstream::{Fetched, canary_keys};
use crate::vector::packed::{Codec, Packed};
use crate::vector::{CosineQuery, Vector};

/// Vectors of vecho's own texts in one space. A copy is in the tiers below memory, for the next process and for other
/// replicas; a purge of the model removes both.
pub(in crate::flow) struct SpaceReference {
    keys: Vec<Key>,
    /// Encoded with their purge counts.
    sealed: Vec<Bytes>,
}

/// A reference that no purge has removed.
pub(in crate::flow) struct Opened {
    records: Vec<Record>,
}

impl SpaceReference {
    /// Creates a reference for a space that has none yet.
    pub(in crate::flow) fn none(space: &Key) -> Self {
        Self { keys: canary_keys(space), sealed: Vec::new() }
    }

    /// Returns the keys of the vectors.
    pub(in crate::flow) fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Returns the vectors, unless they were purged.
    pub(in crate::flow) fn open(&self, tiers: &Stack) -> Option<Opened> {
        let records = self.keys.iter().zip(&self.sealed).map(|(key, bytes)| tiers.unseal(key, bytes));
        Opened::of(records.collect::<Option<_>>()?, self.keys.len())
    }

    /// Returns the vectors that the tiers below memory hold.
    pub(in crate::flow) async fn find(&self, tiers: &Stack) -> Option<Opened> {
        let records = tiers.newest_below(&self.keys).await;
        Opened::of(records.into_iter().collect::<Option<_>>()?, self.keys.len())
    }

    /// Replaces the vectors, here and in the tiers below memory.
    pub(in crate::flow) fn keep(&mut self, records: &[Record], tiers: &Stack, begun: Generation) {
        for (key, record) in self.keys.iter().zip(records) {
            tiers.keep_below(*key, record, begun);
        }
        self.adopt(records, tiers);
    }

    /// Replaces the vectors by those that another process has stored.
    pub(in crate::flow) fn adopt(&mut self, records: &[Record], tiers: &Stack) {
        self.sealed = self.keys.iter().zip(records).map(|(key, record)| tiers.seal(key, record)).collect();
    }
}

impl Opened {
    fn of(records: Vec<Record>, count: usize) -> Option<Self> {
        let is_whole = records.len() == count;
        // Two replicas may have written at the same time, each a part.
        let is_one = records.iter().all(|record| record.identity == records[0].identity);
        (is_whole && is_one).then_some(Self { records })
    }

    /// Returns the model that made the vectors.
    pub(in crate::flow) fn identity(&self) -> &ModelIdentity {
        &self.records[0].identity
    }

    /// Returns the time at which they were last confirmed.
    pub(in crate::flow) fn confirmed_ms(&self) -> u64 {
        self.records.iter().map(|record| record.times.created_ms).min().unwrap_or(0)
    }

    /// Returns the vectors.
    pub(in crate::flow) fn records(&self) -> &[Record] {
        &self.records
    }

    /// Returns the first vector.
    pub(in crate::flow) fn into_first(self) -> Option<Record> {
        self.records.into_iter().next()
    }

    /// Returns the vectors as confirmed at other times.
    pub(in crate::flow) fn confirmed(self, times: Times, asked_model: &Arc<str>) -> Vec<Record> {
        let confirmed = |record: Record| {
            let tokens = record.tokens();
            Record::new(record.vector, record.identity, times, tokens).asked_as(asked_model)
        };
        self.records.into_iter().map(confirmed).collect()
    }

    /// Returns the largest difference between these vectors and other ones: 1 - cosine, and 2 if they cannot be
    /// compared.
    pub(in crate::flow) fn distance(&self, others: &[Fetched]) -> f64 {
        let pairs = self.records.iter().zip(others);
        pairs.map(|(record, other)| distance(&record.vector, &other.vector)).fold(0.0, f64::max)
    }
}

/// Returns the largest difference between two answers.
pub(in crate::flow) fn distance_between(some: &[Fetched], others: &[Fetched]) -> f64 {
    some.iter().zip(others).map(|(one, other)| distance(&one.vector, &other.vector)).fold(0.0, f64::max)
}

fn distance(one: &Packed, other: &Packed) -> f64 {
    let query: Vector = one.unpack();
    CosineQuery::new(&query).cosine(other).map_or(2.0, |cosine| 1.0 - f64::from(cosine))
}

/// Returns the records of an answer.
pub(in crate::flow) fn records_of(
    fetched: Vec<Fetched>,
    identity: &ModelIdentity,
    (times, asked_model): (Times, &Arc<str>),
) -> Vec<Record> {
    let record = |fetched: Fetched| {
        let vector = Packed::pack(&fetched.vector.unpack(), Codec::Lossless);
        Record::new(vector, identity.clone(), times, fetched.tokens).asked_as(asked_model)
    };
    fetched.into_iter().map(record).collect()
}
