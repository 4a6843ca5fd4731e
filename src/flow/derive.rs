//! Vectors of fewer dimensions, derived from longer ones in the cache.
//!
//! A model can be trained such that the first components of its vectors, scaled to unit length, are vectors of fewer
//! dimensions. Its service then makes shorter vectors in the same way.

use std::sync::Arc;

use super::progress::{Progress, Served, Slot};
use super::request::Request;
use super::space_key;
use super::vector_budget::{VECTOR_BYTES, VectorReservation};
use crate::cache::{Found, Lookup, Record};
use crate::key::Key;
use crate::learned::{ModelIdentity, SpaceState};
use crate::observe::metrics::InputSource;
use crate::vector::{COMPONENT_BYTES, Vector};
use crate::wire::Space;

/// Models with shorter vectors of this kind, by the name in their answers, with their own dimension. Source: OpenAI's
/// guide to embeddings, which states for the third generation that a shortened and normalised vector is valid.
const MODELS: [(&str, u32); 2] = [("text-embedding-3-small", 1536), ("text-embedding-3-large", 3072)];

/// Memory of the longest vector of these models.
const LARGEST_BYTES: usize = 3072 * COMPONENT_BYTES + VECTOR_BYTES;

/// Maximum number of longer vectors in memory at once. They are not part of the request's own reservation.
const SLICE_KEYS: usize = 128;

impl Request<'_> {
    /// Fills keys without a vector from longer cached vectors of the same texts.
    pub(super) async fn derive(&self, progress: &mut Progress) {
        let context = self.context();
        let Some(dimensions) = self.job.request.space.dimensions else {
            return;
        };
        // `no-cache` asks for the service's own vectors. Another model may answer by now for these dimensions, or ignore
        // them.
        if !self.trusted || context.controls.no_cache || !may_be_cut(&self.space.space_state, Some(dimensions)) {
            return;
        }
        for longer in longer_spaces(&self.job.request.space, dimensions) {
            let places = progress.empty_places();
            if places.is_empty() {
                return;
            }
            self.derive_from(&longer, (&places, dimensions), progress).await;
        }
    }

    /// Fills these places from vectors of another space, as many at once as memory allows.
    async fn derive_from(&self, longer: &Space, (places, dimensions): (&[usize], u32), progress: &mut Progress) {
        let space = space_key(&self.job.origin.scope, &self.job.origin.uri, longer);
        let space_state = self.flow.spaces.of(space);
        let Some((_held, count)) = self.take_room_for(places.len()) else { return };
        let lookup = Lookup { space_state: &space_state, space, ..self.lookup() };
        for places in places.chunks(count) {
            // The look-up of an earlier slice may have found out which model answers.
            if !may_be_cut(&space_state, longer.dimensions) {
                return;
            }
            let input = |place: &usize| &self.job.request.inputs[self.plan.firsts[*place]];
            let keys: Vec<Key> = places.iter().map(|place| input(place).key(&space)).collect();
            // The records stay where they are: their own requests decide whether they move up.
            let found = self.flow.tiers.examine(&keys, &lookup).await;
            for (place, found) in places.iter().zip(found) {
                if let Found::Fresh(record, _) = found
                    && let Some(record) = shortened(&record, dimensions, self.space.space_state.revision())
                    && self.space.space_state.accepts(&record.identity)
                {
                    let served = Served { record: Arc::new(record), source: InputSource::Derived, call: None };
                    progress.slots[*place] = Slot::Served(served);
                }
            }
        }
    }

    /// Reserves memory for longer vectors. Returns the number that fits, at most `count`, or `None` if none fits.
    fn take_room_for(&self, count: usize) -> Option<(VectorReservation, usize)> {
        // A record is read from a tier as bytes, which are held until all of them are decoded. A look-up in a new space
        // reads all tiers at once.
        let copies = 1 + self.flow.tiers.lower().len();
        let (mut count, held) = (count.min(SLICE_KEYS), VectorReservation::default());
        while count > 0 {
            if self.flow.vector_budget.take_more(&held, copies * count * LARGEST_BYTES) {
                return Some((held, count));
            }
            count /= 2;
        }
        None
    }
}

/// Returns false if the model that answers in a space is known, and its vectors are not made for being cut, or have
/// another dimension than the one asked for.
fn may_be_cut(space_state: &SpaceState, dimensions: Option<u32>) -> bool {
    space_state.identity().is_none_or(|identity| {
        let has_dimensions = dimensions.is_none_or(|dimensions| dimensions as usize == identity.dimension);
        has_dimensions && MODELS.iter().any(|(known, _)| **known == *identity.model)
    })
}

/// Returns the spaces of longer vectors: the one without `dimensions`, and the one that names the model's own.
fn longer_spaces(space: &Space, dimensions: u32) -> Vec<Space> {
    let own = MODELS.iter().find(|(model, _)| *model == space.model_name()).map(|(_, own)| *own);
    let named = own.filter(|own| *own > dimensions).map(Some);
    [None].into_iter().chain(named).map(|dimensions| Space { dimensions, ..space.clone() }).collect()
}

/// Returns the record of the first components of a vector, scaled to unit length, for a space at `revision`. Returns
/// `None` if the model is not trained for it.
fn shortened(record: &Record, dimensions: u32, revision: u64) -> Option<Record> {
    let model = &record.identity.model;
    let wanted = dimensions as usize;
    if !MODELS.iter().any(|(known, _)| **known == **model) || record.identity.dimension <= wanted {
        return None;
    }
    let kept: Vec<f32> = record.vector.unpack().components().take(wanted).collect();
    // Both spaces are watched separately. A vector that was made after the change belongs to the newer revision.
    let revision = if record.times.created_ms < revision { 0 } else { revision };
    let revision = revision.max(record.identity.revision);
    let identity = ModelIdentity { model: Arc::clone(model), dimension: wanted, revision };
    Some(Record::new(Vector::of_unit_length(&kept).ok()?, identity, record.times, record.tokens()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Times;

    fn record(model: &str, components: &[f32]) -> Record {
        let identity = ModelIdentity { model: Arc::from(model), dimension: components.len(), revision: 0 };
        let times = Times { created_ms: 0, fresh_until_ms: 1, stale_until_ms: 1 };
        Record::new(Vector::from_components(components).expect("a vector"), identity, times, Some(3))
    }

    #[test]
    fn a_shortened_vector_has_unit_length_and_its_own_identity() {
        let short = shortened(&record("text-embedding-3-small", &[3.0, 4.0, 12.0]), 2, 0).expect("it can be shortened");
        assert_eq!(short.vector.unpack().components().collect::<Vec<_>>(), [0.6, 0.8]);
        assert_eq!((short.identity.dimension, short.tokens()), (2, Some(3)));
    }

    #[test]
    fn other_models_and_vectors_that_are_not_longer_give_nothing() {
        assert!(shortened(&record("text-embedding-ada-002", &[3.0, 4.0]), 1, 0).is_none());
        assert!(shortened(&record("text-embedding-3-small", &[3.0, 4.0]), 2, 0).is_none());
        assert!(shortened(&record("text-embedding-3-small", &[0.0, 4.0]), 1, 0).is_none(), "nothing is left of it");
    }

    #[test]
    fn a_shortened_vector_has_the_revision_of_the_time_at_which_it_was_made() {
        let made = |created_ms, revision| {
            let mut long = record("text-embedding-3-small", &[3.0, 4.0, 12.0]);
            (long.times.created_ms, long.identity.revision) = (created_ms, revision);
            shortened(&long, 2, 100).expect("it can be shortened").identity.revision
        };
        assert_eq!([made(99, 0), made(100, 0), made(99, 50), made(200, 150)], [0, 100, 50, 150]);
    }
}
