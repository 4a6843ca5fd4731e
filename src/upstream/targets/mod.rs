//! Several places that serve the same models: the choice among them, and the proof that their vectors agree.

mod canary;
mod choice;
mod examine;
mod gate;
mod overview;
mod place;
mod reference;
mod router;
mod several;
mod verdict;

pub use canary::{CANARY_TEXTS, canary_keys};
pub use place::TargetPlace;
pub use reference::{Reference, References, UnreadReferences, cosine_distance};
pub use router::{PlaceReport, Router};
