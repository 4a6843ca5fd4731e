//! Cache keys: 32 bytes of blake3 over everything that can change a vector.
//!
//! Each part is hashed with a one-byte tag and its length, so two different sequences of parts never feed the hash the
//! same bytes. Texts are never stored, only these keys.

mod builder;
mod cache_key;
mod part;
mod process_secret;
mod seen;
mod spread;

#[cfg(test)]
mod tests;

pub use builder::KeyBuilder;
pub use cache_key::{Key, KeyStream};
pub use part::Tag;
pub use process_secret::ProcessSecret;
pub use seen::SeenKeys;
pub use spread::{KeyMap, Spread};
