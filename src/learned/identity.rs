//! Identity of the model behind a vector, and what an answer may change about it.

use std::sync::Arc;

/// Origin of a vector. One answer must never mix vectors of two identities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelIdentity {
    /// Name of the model, as the upstream gave it.
    pub model: Arc<str>,
    /// Dimension of its vectors.
    pub dimension: usize,
    /// Time at which the vectors behind the name were last found to have changed, in milliseconds since the Unix epoch;
    /// 0 if never. See `drift.action`.
    pub revision: u64,
}

impl ModelIdentity {
    /// Returns true if `other` has the same name and dimension.
    pub fn is_named_like(&self, other: &Self) -> bool {
        self.dimension == other.dimension && self.model == other.model
    }
}

/// How the upstream counts tokens, compared with `cl100k_base`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenCounting {
    /// Unknown so far.
    #[default]
    Unknown,
    /// Its counts differ: the tokens of a text are known only from the sum of its call.
    Other,
}

/// Change that an answer caused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelChange {
    /// None; the same model answered.
    Known,
    /// The first answer of this space.
    First,
    /// A model other than before answered: older vectors are misses.
    Drift,
}
