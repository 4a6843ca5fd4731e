//! Concurrent map from [`crate::key::Key`] with a limit in bytes. No other folder uses the cache library.

mod map;
mod mark;

#[cfg(test)]
mod tests;

pub use map::{Bounded, Entry, MapBounds};
pub use mark::Mark;
