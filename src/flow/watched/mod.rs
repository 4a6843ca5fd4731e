//! The spaces whose models are checked for changes, with the vectors that answers are compared with.

mod list;
mod reference;

pub use list::Watch;
pub(super) use list::{MAX_SPACES, SpaceInUse, Watched};
pub(super) use reference::{Opened, distance_between, records_of};
