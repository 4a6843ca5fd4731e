//! The vectors that each target's answers are compared with.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::key::Key;
use crate::vector::packed::Packed;
use crate::vector::{CosineQuery, Vector};

/// Vectors of vecho's own texts for one model, as the first target gave them.
#[derive(Clone, Debug)]
pub struct Reference {
    /// The name of the model in the answer. Answers of every target get this name, so they count as one model.
    pub model: Arc<str>,
    /// One vector for each text.
    pub vectors: Vec<Vector>,
}

/// Storage in which references outlive the process.
pub trait References: Send + Sync {
    /// Returns the reference of a model, if there is any.
    fn find(&self, model: Key) -> BoxFuture<'_, Result<Option<Reference>, UnreadReferences>>;

    /// Stores the first reference of a model, unless another replica has stored one meanwhile. Returns the one that
    /// counts.
    fn begin<'a>(&'a self, model: Key, asked_model: &'a str, reference: Reference) -> BoxFuture<'a, Reference>;

    /// Stores the reference of a model. `asked_model` is its name in requests.
    fn keep(&self, model: Key, asked_model: &str, reference: &Reference);
}

/// Error for a place that cannot be read at present, so it may hold a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a tier that may hold the vectors to compare a target with does not work")]
pub struct UnreadReferences;

impl Reference {
    /// Returns the number of components of each vector.
    pub(super) fn dimension(&self) -> usize {
        self.vectors.first().map_or(0, Vector::dimension)
    }

    /// Returns the largest difference to other vectors of the same texts: 1 - cosine, or 2 if they cannot be compared.
    pub(super) fn distance(&self, others: &[Vector]) -> f64 {
        if others.len() != self.vectors.len() {
            return 2.0;
        }
        let pairs = self.vectors.iter().zip(others);
        pairs.map(|(one, other)| cosine_distance(one, other)).fold(0.0, f64::max)
    }
}

/// Returns 1 - cosine of two vectors, or 2 if they cannot be compared.
pub fn cosine_distance(one: &Vector, other: &Vector) -> f64 {
    let cosine = CosineQuery::new(one).cosine(&Packed::from(other.clone()));
    cosine.map_or(2.0, |cosine| 1.0 - f64::from(cosine))
}
